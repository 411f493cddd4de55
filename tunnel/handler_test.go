package tunnel_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

func TestAPanickingHandlerResetsItsStreamOnly(t *testing.T) {
	f := start(t, nil, nil)
	require.NoError(t, f.agent.Handle(echoService, echo))
	require.NoError(t, f.agent.Handle("test.example/panic", tunnel.HandlerFunc(func(context.Context, *tunnel.Incoming) {
		panic("a bug in a product")
	})))
	require.NoError(t, f.agent.Handle("test.example/late-panic", tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		if _, err := in.Accept(nil); err == nil {
			panic("a bug after accept")
		}
	})))
	s := f.session(t)
	witness, err := s.Open(t.Context(), echoTarget())
	require.NoError(t, err)
	defer witness.Close()

	_, err = s.Open(t.Context(), tunnel.Target{Service: "test.example/panic"})
	require.ErrorIs(t, err, transport.Internal)
	stream, err := s.Open(t.Context(), tunnel.Target{Service: "test.example/late-panic"})
	if err == nil { // the reset may overtake the reply
		_, err = io.ReadAll(stream)
		_ = stream.Close()
	}
	require.ErrorIs(t, err, transport.Internal)
	requireEcho(t, witness)
	require.EqualValues(t, 2, f.agent.Stats().Panics)
}

func TestAHandlerThatGivesNoAnswerRejects(t *testing.T) {
	f := start(t, nil, nil)
	require.NoError(t, f.agent.Handle(echoService, tunnel.HandlerFunc(func(context.Context, *tunnel.Incoming) {})))
	_, err := f.session(t).Open(t.Context(), echoTarget())
	require.ErrorIs(t, err, transport.Internal)
	require.ErrorContains(t, err, "gave no answer")
}

func TestAnIncomingIsAnsweredOnce(t *testing.T) {
	f := start(t, nil, nil)
	second := make(chan error, 2)
	require.NoError(t, f.agent.Handle(echoService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		_ = in.Reject(transport.NoError, "odd\ncode\x00")
		_, err := in.Accept(nil)
		second <- err
		second <- in.Reject(transport.Denied, "")
	})))
	_, err := f.session(t).Open(t.Context(), echoTarget())
	oe := openError(t, err)
	require.Equal(t, transport.Internal, oe.Code, "a refusal never looks like success")
	require.Equal(t, "odd code ", oe.Reason)
	require.ErrorIs(t, <-second, tunnel.ErrAnswered)
	require.ErrorIs(t, <-second, tunnel.ErrAnswered)
}

func TestHandleRefusesNamesThatAreTakenReservedOrMalformed(t *testing.T) {
	a := &tunnel.Agent{}
	require.NoError(t, a.Handle("test.example/x", echo))
	require.ErrorContains(t, a.Handle("test.example/x", echo), "already")
	require.ErrorContains(t, a.Handle("control", echo), "reserved")
	require.ErrorContains(t, a.Handle("kube", echo), "reserved")
	require.ErrorContains(t, a.Handle("test.example/y", nil), "nil")
	for _, name := range []string{"", "x", "/x", "test.example/", "test.example/\n", "TCP"} {
		require.ErrorContains(t, a.Handle(name, echo), "want tcp", "%q", name)
	}
	require.NoError(t, a.Handle("http", echo), "a product may serve http itself")
	require.ErrorContains(t, a.Handle("http", echo), "already")
}

func TestAnHTTPServerServesStreamsWithoutAPort(t *testing.T) {
	f := start(t, nil, nil)
	ln, err := f.agent.Listen("http")
	require.NoError(t, err)
	subjects := make(chan string, 1)
	server := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			subjects <- tunnel.IncomingOf(c).Target.Subject
			return ctx
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, "private "+r.URL.Path+" for "+r.RemoteAddr)
		}),
		ReadHeaderTimeout: time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	f.session(t)
	dial := f.gateway.Dialer("agent-1", "alice")
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		return dial(ctx, "http", address)
	}}}
	defer client.CloseIdleConnections()
	resp, err := client.Get("http://status.internal/page")
	require.NoError(t, err)
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "private /page for alice", string(body))
	require.Equal(t, "alice", <-subjects)

	require.NoError(t, server.Close())
	require.ErrorIs(t, <-served, http.ErrServerClosed)
	_, err = dial(t.Context(), "http", "status.internal:80")
	require.ErrorIs(t, err, transport.UnknownService)
}

func TestAStreamThatNobodyAcceptsIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		ln, err := f.agent.Listen(echoService)
		require.NoError(t, err)
		s := f.session(t)
		began := time.Now()
		_, err = s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.Timeout)
		require.LessOrEqual(t, time.Since(began), 15*time.Second)
		require.True(t, openError(t, err).Remote, "the agent answers before the caller gives up")

		go func() { time.Sleep(time.Second); _ = ln.Close() }()
		_, err = s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.UnknownService)
		_, err = ln.Accept()
		require.ErrorIs(t, err, net.ErrClosed)
	})
}

func TestAnAgentOpensStreamsToTheGateway(t *testing.T) {
	f := start(t, nil, nil)
	from := make(chan string, 1)
	require.NoError(t, f.gateway.Handle("test.example/events", tunnel.HandlerFunc(func(ctx context.Context, in *tunnel.Incoming) {
		from <- in.Agent
		echo(ctx, in)
	})))
	_, err := f.agent.Open(t.Context(), tunnel.Target{Service: "bad\nname"})
	require.ErrorIs(t, err, transport.UnknownService)
	require.NotContains(t, err.Error(), "\n")
	require.NoError(t, f.agent.WaitConnected(t.Context()))
	stream, err := f.agent.Open(t.Context(), tunnel.Target{Service: "test.example/events"})
	require.NoError(t, err)
	requireEcho(t, stream)
	require.NoError(t, stream.Close())
	require.Equal(t, "agent-1", <-from)

	_, err = f.agent.Open(t.Context(), tunnel.Target{Service: "tcp", Address: "db.internal:5432"})
	require.ErrorIs(t, err, transport.UnknownService, "a gateway dials nothing for an agent")
}
