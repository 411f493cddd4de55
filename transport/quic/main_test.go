package quic_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"log"
	"net"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// TestMain looks for goroutines that were left, and for output: the library under
// this package prints to the process's log, this package must not.
func TestMain(m *testing.M) {
	if os.Getenv(doomedVariable) != "" {
		os.Exit(beDoomed())
	}
	_ = flag.Set("test.parallel", "8") // parallel tests wait most of the time; an explicit -parallel counts
	var printed bytes.Buffer           // log serialises its writes
	log.SetOutput(&printed)
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if printed.Len() > 0 {
			fmt.Fprintf(os.Stderr, "FAIL: the process's log was written to:\n%s", &printed)
			code = 1
		}
		os.Exit(code)
	}))
}

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// soon is a context that bounds a wait.
func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// listen listens on a loopback port until the end of the test.
func listen(tb testing.TB, ca *testca.CA, config quic.ListenConfig) *quic.Listener {
	tb.Helper()
	l, err := quic.Listen("127.0.0.1:0", ca.Gateway(), config)
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = l.Close() })
	return l
}

func urlOf(a net.Addr) string { return "https://" + a.String() }

// connect makes a connection to l that lives until the end of the test.
func connect(tb testing.TB, l *quic.Listener, d *quic.Dialer) (agent, gateway transport.Mux) {
	tb.Helper()
	agent, err := d.Dial(soon(tb), urlOf(l.Addr()))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "end of test") })
	gateway, err = l.Accept(soon(tb))
	require.NoError(tb, err)
	tb.Cleanup(func() { _ = gateway.CloseWithError(transport.NoError, "end of test") })
	return agent, gateway
}

// pair makes a connection with default limits.
func pair(tb testing.TB) (agent, gateway transport.Mux) {
	tb.Helper()
	ca := testca.New(tb)
	return connect(tb, listen(tb, ca, quic.ListenConfig{}), &quic.Dialer{TLSClientConfig: ca.Agent("agent-1")})
}

// open opens a stream from one side to the other and writes hello on it.
func open(tb testing.TB, from, to transport.Mux, hello string) (opened, accepted transport.Stream) {
	tb.Helper()
	opened, err := from.OpenStream(soon(tb))
	require.NoError(tb, err)
	_, err = opened.Write([]byte(hello))
	require.NoError(tb, err)
	accepted, err = to.AcceptStream(soon(tb))
	require.NoError(tb, err)
	deadline := time.Now().Add(patience)
	require.NoError(tb, opened.SetDeadline(deadline))
	require.NoError(tb, accepted.SetDeadline(deadline))
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
