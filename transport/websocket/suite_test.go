package websocket_test

import (
	"context"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/transporttest"
	"github.com/outgate/outgate/transport/websocket"
)

// multiplexers are what every test of a connection is for.
var multiplexers = map[string]websocket.Multiplexer{"Native": websocket.Native, "Smux": websocket.Smux}

// overEach runs a test over each of them.
func overEach(t *testing.T, f func(t *testing.T, over websocket.Multiplexer)) {
	for name, m := range multiplexers {
		t.Run(name, func(t *testing.T) { f(t, m) })
	}
}

func TestWebSocketKeepsThePromisesOfATransport(t *testing.T) {
	overEach(t, func(t *testing.T, over websocket.Multiplexer) { transporttest.Run(t, harness(t, over)) })
}

func BenchmarkTransport(b *testing.B) {
	for name, m := range multiplexers {
		b.Run(name, func(b *testing.B) { transporttest.Benchmark(b, harness(b, m)) })
	}
}

func harness(tb testing.TB, m websocket.Multiplexer) transporttest.Harness {
	ca := testca.New(tb)
	const maxStreams = 1024
	return transporttest.Harness{
		MaxStreams:  maxStreams,
		MaxBuffered: 1 << 20,
		Connect: func(tb testing.TB) transporttest.Pair {
			tb.Helper()
			cfg := websocket.Config{MaxStreams: maxStreams, Multiplexer: m}
			var cable cable
			agent, gateway := connect(tb, listen(tb, ca.Gateway(), cfg), &websocket.Dialer{
				TLSClientConfig: ca.Agent("agent-1"),
				Config:          cfg,
				NetDial:         cable.dial,
			})
			return transporttest.Pair{Dialed: agent, Accepted: gateway, Cut: cable.cut}
		},
	}
}

// cable is a connection that a test can cut.
type cable struct {
	mu   sync.Mutex
	conn net.Conn
}

func (c *cable) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := new(net.Dialer).DialContext(ctx, network, address)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn = conn
	return conn, err
}

func (c *cable) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = c.conn.Close()
}

// carries checks that a connection still carries streams in both directions.
func carries(tb testing.TB, a, b transport.Mux) {
	tb.Helper()
	for _, way := range [][2]transport.Mux{{a, b}, {b, a}} {
		opened, accepted := open(tb, way[0], way[1])
		_, err := opened.Write([]byte("ping"))
		require.NoError(tb, err)
		buf := make([]byte, 4)
		_, err = accepted.Read(buf)
		require.NoError(tb, err)
		require.Equal(tb, "ping", string(buf))
	}
}
