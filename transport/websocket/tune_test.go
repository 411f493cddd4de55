//go:build linux

package websocket_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// witness is a listener that keeps what it has accepted.
type witness struct {
	net.Listener
	accepted chan net.Conn
}

func (w witness) Accept() (net.Conn, error) {
	conn, err := w.Listener.Accept()
	if err == nil {
		w.accepted <- conn
	}
	return conn, err
}

func TestTheSocketsOfATunnelNoticeAPeerThatIsGone(t *testing.T) {
	ca := testca.New(t)
	const writeTimeout = 8 * time.Second
	for name, guard := range map[string]bool{"guarded": true, "mounted by the caller": false} {
		t.Run(name, func(t *testing.T) {
			cfg := websocket.Config{WriteTimeout: writeTimeout}
			l := websocket.NewListener(cfg)
			t.Cleanup(func() { _ = l.Close() })
			socket, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(t, err)
			seen := witness{socket, make(chan net.Conn, 1)}
			server := &http.Server{Handler: l, ReadHeaderTimeout: patience, TLSConfig: ca.Gateway(), TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}}
			var serving net.Listener = seen
			if guard {
				serving = l.Guard(server, seen)
			}
			served := make(chan error, 1)
			go func() { served <- server.ServeTLS(serving, "", "") }()
			t.Cleanup(func() {
				_ = server.Close()
				if err := <-served; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
			var cable cable
			d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: cfg, NetDial: cable.dial}
			agent, err := d.Dial(soon(t), urlOf(socket.Addr()))
			require.NoError(t, err)
			t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
			gateway, err := l.Accept(soon(t))
			require.NoError(t, err)
			t.Cleanup(func() { _ = gateway.CloseWithError(transport.NoError, "") })
			for side, conn := range map[string]net.Conn{"agent": cable.conn, "gateway": <-seen.accepted} {
				require.Equal(t, 1, option(t, conn, syscall.SOL_SOCKET, syscall.SO_KEEPALIVE), side)
				require.Equal(t, 15, option(t, conn, syscall.IPPROTO_TCP, syscall.TCP_KEEPIDLE), side)
				require.Equal(t, 5, option(t, conn, syscall.IPPROTO_TCP, syscall.TCP_KEEPINTVL), side)
				require.Equal(t, 3, option(t, conn, syscall.IPPROTO_TCP, syscall.TCP_KEEPCNT), side)
				require.Equal(t, 12_000, option(t, conn, syscall.IPPROTO_TCP, 18), "%s: TCP_USER_TIMEOUT", side)
				require.Equal(t, 128<<10, option(t, conn, syscall.IPPROTO_TCP, 25), "%s: TCP_NOTSENT_LOWAT", side)
			}
		})
	}
}

func option(tb testing.TB, conn net.Conn, level, name int) (value int) {
	tb.Helper()
	raw, err := conn.(syscall.Conn).SyscallConn()
	require.NoError(tb, err)
	var failed error
	require.NoError(tb, raw.Control(func(fd uintptr) { value, failed = syscall.GetsockoptInt(int(fd), level, name) }))
	require.NoError(tb, failed)
	return value
}
