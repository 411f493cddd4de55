package splice_test

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a running Join and what is beyond its two sides.
type fixture struct {
	caller transport.Stream // the other end of the stream
	target net.Conn         // the other end of the target connection
	mux    *mem.Mux         // the connection that carries the stream
	done   chan splice.Result
}

// start joins one end of a new stream with near, whose other end is far.
func start(ctx context.Context, t *testing.T, near, far net.Conn) *fixture {
	t.Helper()
	caller, stream, mux := streams(t)
	f := &fixture{caller: caller, target: far, mux: mux, done: make(chan splice.Result, 1)}
	go func() { f.done <- splice.Join(ctx, stream, near) }()
	t.Cleanup(func() {
		_ = caller.Reset(transport.Canceled)
		_ = far.Close()
	})
	return f
}

// startTCP is start with a target behind a TCP connection.
func startTCP(ctx context.Context, t *testing.T) *fixture {
	t.Helper()
	near, far := pair(t, "tcp")
	return start(ctx, t, near, far)
}

// result waits for the Join to return.
func (f *fixture) result(t *testing.T) splice.Result {
	t.Helper()
	select {
	case r := <-f.done:
		return r
	case <-time.After(time.Minute):
		t.Fatal("Join does not return")
		return splice.Result{}
	}
}

// streams returns the two ends of a stream.
func streams(t *testing.T) (opened, accepted transport.Stream, mux *mem.Mux) {
	t.Helper()
	listener := &mem.Listener{}
	dialed, err := (&mem.Dialer{Listener: listener}).Dial(t.Context(), "")
	require.NoError(t, err)
	taken, err := listener.Accept(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = dialed.CloseWithError(transport.NoError, "")
		_ = taken.CloseWithError(transport.NoError, "")
		_ = listener.Close()
	})
	opened, err = dialed.OpenStream(t.Context())
	require.NoError(t, err)
	send(t, opened, "!") // makes the stream visible to the other side
	accepted, err = taken.AcceptStream(t.Context())
	require.NoError(t, err)
	receive(t, accepted, "!")
	return opened, accepted, dialed.(*mem.Mux)
}

// pair returns the two ends of a real connection over "tcp" or "unix".
func pair(t *testing.T, network string) (near, far net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := net.Listen(network, address)
	require.NoError(t, err)
	defer ln.Close()
	near, err = net.Dial(network, ln.Addr().String())
	require.NoError(t, err)
	far, err = ln.Accept()
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = near.Close()
		_ = far.Close()
	})
	return near, far
}

func send(t *testing.T, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	require.NoError(t, err)
}

func receive(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	_, err := io.ReadFull(r, got)
	require.NoError(t, err)
	require.Equal(t, want, string(got))
}

func receiveEnd(t *testing.T, r io.Reader) {
	t.Helper()
	n, err := r.Read(make([]byte, 1))
	require.Equal(t, io.EOF, err)
	require.Zero(t, n)
}

// closeWrite ends one direction of c.
func closeWrite(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.(interface{ CloseWrite() error }).CloseWrite())
}
