package websocket_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// tracked is a connection of which the test knows when it is collected.
type tracked struct{ net.Conn }

// track returns conn and a channel that is closed when it is garbage.
func track(conn net.Conn) (net.Conn, <-chan struct{}) {
	c, gone := &tracked{conn}, make(chan struct{})
	runtime.AddCleanup(c, func(gone chan struct{}) { close(gone) }, gone)
	return c, gone
}

// trackingListener tracks what it accepts.
type trackingListener struct {
	net.Listener
	accepted chan (<-chan struct{})
}

func (l trackingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	conn, gone := track(conn)
	l.accepted <- gone
	return conn, nil
}

// The libraries below have finalizers, which keep what points to itself for ever
// unless somebody takes them off.
func TestAConnectionThatIsOverIsGarbage(t *testing.T) {
	ends := map[string]func(agent, gateway transport.Mux){
		"closed by the agent":   func(agent, _ transport.Mux) { _ = agent.CloseWithError(transport.NoError, "") },
		"closed by the gateway": func(_, gateway transport.Mux) { _ = gateway.CloseWithError(transport.Draining, "") },
		"silent":                func(agent, _ transport.Mux) { _ = agent.CloseWithError(transport.Timeout, "") },
	}
	for _, multiplexer := range []websocket.Multiplexer{websocket.Native, websocket.Smux} {
		for name, end := range ends {
			t.Run(fmt.Sprintf("multiplexer %d, %s", multiplexer, name), func(t *testing.T) {
				ca := testca.New(t)
				cfg := websocket.Config{Multiplexer: multiplexer}
				socket, err := net.Listen("tcp", "127.0.0.1:0")
				require.NoError(t, err)
				tracking := trackingListener{socket, make(chan (<-chan struct{}), 1)}
				l := websocket.NewListener(cfg)
				server := &http.Server{Handler: l, TLSConfig: ca.Gateway()}
				guarded := l.Guard(server, tracking)
				served := make(chan error, 1)
				go func() { served <- server.ServeTLS(guarded, "", "") }()
				defer func() {
					require.NoError(t, errors.Join(server.Close(), l.Close()))
					require.ErrorIs(t, <-served, http.ErrServerClosed)
				}()

				var atAgent <-chan struct{}
				d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1"), Config: cfg}
				d.NetDial = func(ctx context.Context, network, address string) (conn net.Conn, err error) {
					if conn, err = new(net.Dialer).DialContext(ctx, network, address); err == nil {
						conn, atAgent = track(conn)
					}
					return conn, err
				}
				func() { // so that nothing of the connection stays on the stack
					agent, err := d.Dial(soon(t), urlOf(socket.Addr()))
					require.NoError(t, err)
					gateway, err := l.Accept(soon(t))
					require.NoError(t, err)
					end(agent, gateway)
					<-agent.Context().Done()
					<-gateway.Context().Done()
				}()
				collected(t, atAgent, "the agent's side")
				collected(t, <-tracking.accepted, "the gateway's side")
			})
		}
	}
}

func collected(t *testing.T, gone <-chan struct{}, what string) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("%s is still reachable", what)
}
