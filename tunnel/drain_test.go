package tunnel_test

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

func TestShutdownOfTheGatewayLetsStreamsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)

		down := make(chan error, 1)
		go func() { down <- f.gateway.Shutdown(t.Context()) }()
		synctest.Wait()
		require.True(t, f.agent.Status().Draining)
		_, err = s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.Draining)
		require.NoError(t, s.Context().Err())
		time.Sleep(5 * time.Minute)
		requireEcho(t, stream) // still whole
		require.NoError(t, stream.Close())

		require.NoError(t, <-down)
		require.ErrorIs(t, context.Cause(s.Context()), transport.Draining)
		require.ErrorIs(t, f.gateway.Serve(t.Context(), &mem.Listener{}), tunnel.ErrGatewayClosed)
	})
}

func TestShutdownCutsWhatOutlivesItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		stream, err := f.session(t).Open(t.Context(), echoTarget())
		require.NoError(t, err)
		enough := errors.New("enough")
		ctx, cancel := context.WithTimeoutCause(t.Context(), 30*time.Second, enough)
		defer cancel()
		began := time.Now()
		require.ErrorIs(t, f.gateway.Shutdown(ctx), enough)
		require.Equal(t, 30*time.Second, time.Since(began))
		_, err = stream.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.Draining)
		require.NotErrorIs(t, err, io.EOF)
		require.NoError(t, stream.Close())
	})
}

func TestCloseOfTheGatewayCutsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		began := time.Now()
		require.NoError(t, f.gateway.Close())
		require.Zero(t, time.Since(began))
		require.Error(t, s.Context().Err())
		_, err = stream.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.Draining)
		require.NoError(t, stream.Close())
		require.Zero(t, f.gateway.Stats().Connections)
	})
}

func TestADrainedAgentComesBackWithinTheSpread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := &tunnel.Gateway{DrainSpread: 20 * time.Second}
		second := &mem.Listener{}
		var moved atomic.Bool
		f := start(t, first, &tunnel.Agent{Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
			if moved.Load() {
				return (&mem.Dialer{Listener: second, Name: "agent-1"}).Dial(ctx, url)
			}
			return d.Dial(ctx, url)
		})}})
		f.session(t)
		next := &tunnel.Gateway{}
		served := make(chan error, 1)
		go func() { served <- next.Serve(t.Context(), second) }()
		synctest.Wait()
		moved.Store(true)
		began := time.Now()
		require.NoError(t, first.Shutdown(t.Context()))
		_, err := next.WaitSession(t.Context(), "agent-1")
		require.NoError(t, err)
		require.LessOrEqual(t, time.Since(began), 20*time.Second+time.Millisecond)
		require.NoError(t, next.Close())
		require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
	})
}

func TestShutdownOfTheAgentDrainsAndEndsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- f.agent.Shutdown(t.Context()) }()
		synctest.Wait()
		_, err = s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.Draining)
		requireEcho(t, stream)
		require.NoError(t, stream.Close())
		require.NoError(t, <-down)
		err = <-f.ran
		require.ErrorIs(t, err, tunnel.ErrAgentClosed)
		f.ran <- err // for the clean-up
		require.ErrorIs(t, f.agent.Run(t.Context()), tunnel.ErrAgentClosed)
	})
}

func TestServeEndsWithItsContextAndSessionsLiveOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &tunnel.Gateway{}
		ln := &mem.Listener{}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- g.Serve(ctx, ln) }()
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{&mem.Dialer{Listener: ln, Name: "agent-1"}}})
		_, err := g.WaitSession(t.Context(), "agent-1")
		require.NoError(t, err)
		cancel()
		require.ErrorIs(t, <-served, context.Canceled)
		synctest.Wait()
		require.Equal(t, tunnel.StateConnected, f.agent.Status().State)
		require.NoError(t, g.Close())
	})
}
