package websocket_test

import (
	"context"
	"crypto/tls"
	"flag"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

func TestMain(m *testing.M) {
	if target := os.Getenv(floodTarget); target != "" {
		flood(target) // this process is an attacker, see underFlood
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "16") // those tests wait for most of their time
	// An http.Server that has refused a request with a body waits for half a second
	// before it closes the connection; http.Server.Close does not wait for that.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// patience is how long a test waits for what must happen.
const patience = 15 * time.Second

// soon is a context that bounds a wait.
func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// listen serves tunnels on a loopback port until the end of the test.
func listen(tb testing.TB, tlsConfig *tls.Config, cfg websocket.Config) *websocket.Listener {
	tb.Helper()
	l, err := websocket.Listen("127.0.0.1:0", tlsConfig, cfg)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

func urlOf(a net.Addr) string { return "https://" + a.String() }

// connect makes a connection to l that lives until the end of the test.
func connect(tb testing.TB, l *websocket.Listener, d *websocket.Dialer) (agent, gateway transport.Mux) {
	tb.Helper()
	agent, err := d.Dial(soon(tb), urlOf(l.Addr()))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "end of test") })
	gateway, err = l.Accept(soon(tb))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = gateway.CloseWithError(transport.NoError, "end of test") })
	return agent, gateway
}

// pair makes a connection with the limits of cfg on both sides.
func pair(tb testing.TB, cfg websocket.Config) (agent, gateway transport.Mux) {
	tb.Helper()
	ca := testca.New(tb)
	return connect(tb, listen(tb, ca.Gateway(), cfg), &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: cfg})
}

// open opens a stream and accepts it.
func open(tb testing.TB, from, to transport.Mux) (opened, accepted transport.Stream) {
	tb.Helper()
	opened, err := from.OpenStream(soon(tb))
	require.NoError(tb, err)
	_, err = opened.Write(nil) // which makes it known to the peer
	require.NoError(tb, err)
	accepted, err = to.AcceptStream(soon(tb))
	require.NoError(tb, err)
	deadline := time.Now().Add(patience)
	require.NoError(tb, opened.SetDeadline(deadline))
	require.NoError(tb, accepted.SetDeadline(deadline))
	tb.Cleanup(func() { _, _ = opened.Close(), accepted.Close() })
	return opened, accepted
}

// eventually waits for a channel.
func eventually[T any](tb testing.TB, c <-chan T, what string) T {
	tb.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		tb.Fatalf("%s: not within %v", what, patience)
		panic("unreachable")
	}
}
