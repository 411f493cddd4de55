package websocket_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

func TestABacklogThatIsFullAnswers503AndLosesNobody(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{Backlog: 2})
	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	var agents []transport.Mux
	for range 2 {
		m, err := d.Dial(soon(t), urlOf(l.Addr()))
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
		agents = append(agents, m)
	}
	for range 3 {
		_, err := d.Dial(soon(t), urlOf(l.Addr()))
		var refused *websocket.HandshakeError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, http.StatusServiceUnavailable, refused.Status)
		require.Positive(t, refused.RetryAfter)
		require.Equal(t, refused.RetryAfter, refused.RetryDelay())
		require.ErrorIs(t, err, transport.Overloaded)
	}
	accepted := map[string]transport.Mux{} // Accept may return them in another order
	for range agents {
		m, err := l.Accept(soon(t))
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
		accepted[m.RemoteAddr().String()] = m
	}
	for _, agent := range agents {
		m := accepted[agent.LocalAddr().String()]
		require.NotNil(t, m)
		carries(t, agent, m)
	}
	connect(t, l, d) // there is room again
}

func TestAConnectionWhoseAgentGaveUpIsNotAccepted(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	m, err := d.Dial(soon(t), urlOf(l.Addr()))
	require.NoError(t, err)
	require.NoError(t, m.CloseWithError(transport.NoError, "")) // waits for the peer's goodbye
	connect(t, l, d)
}

func TestAfterCloseAListenerEndsWhatWaitsAndKeepsWhatWasAccepted(t *testing.T) {
	ca := testca.New(t)
	d := &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}
	owned := listen(t, ca.Gateway(), websocket.Config{})
	mounted, url := mount(t, ca, websocket.Config{})
	for name, c := range map[string]struct {
		l   *websocket.Listener
		url string
	}{"owned": {owned, urlOf(owned.Addr())}, "mounted": {mounted, url}} {
		agent, err := d.Dial(soon(t), c.url)
		require.NoError(t, err, name)
		t.Cleanup(func() { _ = agent.CloseWithError(transport.NoError, "") })
		accepted, err := c.l.Accept(soon(t))
		require.NoError(t, err, name)
		t.Cleanup(func() { _ = accepted.CloseWithError(transport.NoError, "") })
		waiting, err := d.Dial(soon(t), c.url)
		require.NoError(t, err, name)

		accept := make(chan error, 1)
		ctx := soon(t)
		if name == "owned" { // the queue is not empty in the other case
			m, err := c.l.Accept(ctx)
			require.NoError(t, err)
			t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
			go func() { _, err := c.l.Accept(ctx); accept <- err }()
		}
		require.NoError(t, c.l.Close(), name)
		if name == "owned" {
			require.ErrorIs(t, eventually(t, accept, "the Accept that was pending"), net.ErrClosed)
			_ = waiting.CloseWithError(transport.NoError, "")
		} else {
			eventually(t, waiting.Context().Done(), "the end of the connection that nobody accepted")
			require.ErrorIs(t, context.Cause(waiting.Context()), transport.Draining)
		}
		_, err = c.l.Accept(ctx)
		require.ErrorIs(t, err, net.ErrClosed, name)
		carries(t, agent, accepted)
		_, err = d.Dial(soon(t), c.url)
		require.Error(t, err, name)
		if name == "mounted" {
			require.ErrorIs(t, err, transport.Overloaded, name)
		}
		require.NoError(t, c.l.Close(), "%s: again", name)
	}
}

func TestAcceptAndDialHonourTheirContexts(t *testing.T) {
	ca := testca.New(t)
	l := listen(t, ca.Gateway(), websocket.Config{})
	why := fmt.Errorf("tired of waiting")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	_, err := l.Accept(ctx)
	require.ErrorIs(t, err, why)

	// A gateway that accepts connections and says nothing.
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = silent.Close() })
	ctx, cancel = context.WithCancelCause(t.Context())
	dial := make(chan error, 1)
	go func() {
		_, err := (&websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")}).Dial(ctx, "https://"+silent.Addr().String())
		dial <- err
	}()
	conn, err := silent.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	cancel(why)
	require.ErrorIs(t, eventually(t, dial, "Dial after its context ended"), why)

	_, err = (&websocket.Dialer{
		TLSClientConfig: ca.Agent("agent-1"),
		Config:          websocket.Config{HandshakeTimeout: 20 * time.Millisecond},
	}).Dial(t.Context(), "https://"+silent.Addr().String())
	require.ErrorIs(t, err, transport.Timeout)
	require.ErrorContains(t, err, "20ms")
}
