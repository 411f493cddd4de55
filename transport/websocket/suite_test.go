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

func TestWebSocketKeepsThePromisesOfATransport(t *testing.T) { transporttest.Run(t, harness(t)) }

func BenchmarkTransport(b *testing.B) { transporttest.Benchmark(b, harness(b)) }

func harness(tb testing.TB) transporttest.Harness {
	ca := testca.New(tb)
	const maxStreams = 1024
	return transporttest.Harness{
		MaxStreams:  maxStreams,
		MaxBuffered: 1 << 20,
		Connect: func(tb testing.TB) transporttest.Pair {
			tb.Helper()
			cfg := websocket.Config{MaxStreams: maxStreams}
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
