package tunnel_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// once is an agent that connects and does not come back: whichever side notices first,
// the session then ends.
func once() *tunnel.Agent {
	var dialed atomic.Bool
	return &tunnel.Agent{Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
		if dialed.Swap(true) {
			return nil, errors.New("once is enough")
		}
		return d.Dial(ctx, url)
	})}}
}

func TestASilentPeerIsNoticedWithinNineSecondsWhileAStreamIsOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, once())
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		stream, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		defer stream.Close()
		requireEcho(t, stream)
		time.Sleep(time.Minute) // pings keep the connection alive
		require.NoError(t, s.Context().Err())

		f.dialer.Freeze()
		frozen := time.Now()
		<-s.Context().Done()
		require.ErrorIs(t, context.Cause(s.Context()), transport.Timeout)
		require.LessOrEqual(t, time.Since(frozen), 9*time.Second+time.Millisecond)
		_, err = stream.Read(make([]byte, 1))
		require.ErrorIs(t, err, transport.Timeout)
		f.dialer.Cut()
	})
}

func TestAnOpenOnADeadIdleConnectionFailsInBusyTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, once())
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		time.Sleep(40 * time.Second)
		f.dialer.Freeze()
		began := time.Now()
		_, err := s.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, transport.ConnectionLost)
		require.ErrorIs(t, err, transport.Timeout, "the cause says that the peer fell silent")
		require.LessOrEqual(t, time.Since(began), 12*time.Second)
		f.dialer.Cut()
	})
}

func TestAnIdleConnectionPingsSeldomAndLives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, once())
		s := f.session(t)
		time.Sleep(30 * time.Minute)
		require.NoError(t, s.Context().Err())
		require.Equal(t, tunnel.StateConnected, f.agent.Status().State)

		f.dialer.Freeze()
		frozen := time.Now()
		<-s.Context().Done()
		require.LessOrEqual(t, time.Since(frozen), 21*time.Second+time.Millisecond)
		f.dialer.Cut()
	})
}

func TestTheAgentNoticesADeadGatewayToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		// This gateway would wait for an hour: what ends is the agent's doing.
		f := start(t, &tunnel.Gateway{Liveness: tunnel.Liveness{Idle: time.Hour, Busy: time.Hour}}, nil)
		f.session(t)
		synctest.Wait()
		f.dialer.Freeze()
		frozen := time.Now()
		for f.agent.Status().LastError == nil {
			time.Sleep(time.Second)
			require.Less(t, time.Since(frozen), time.Minute)
		}
		require.ErrorIs(t, f.agent.Status().LastError, transport.Timeout)
		f.dialer.Cut()
	})
}

func TestAPingThatCannotLeaveDoesNotDelayTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dialed, stuck atomic.Bool
		agent := &tunnel.Agent{Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
			if dialed.Swap(true) {
				return nil, errors.New("once is enough")
			}
			mux, err := d.Dial(ctx, url)
			if err != nil {
				return nil, err
			}
			return stuckMux{mux, &stuck}, nil
		})}}
		// This gateway would wait for an hour: what ends is the agent's doing.
		f := start(t, &tunnel.Gateway{Liveness: tunnel.Liveness{Idle: time.Hour, Busy: time.Hour}}, agent)
		require.NoError(t, f.agent.Handle(echoService, echo))
		stream, err := f.session(t).Open(t.Context(), echoTarget())
		require.NoError(t, err)
		defer stream.Close()
		requireEcho(t, stream)

		f.dialer.Freeze()
		stuck.Store(true)
		frozen := time.Now()
		for f.agent.Status().LastError == nil {
			time.Sleep(time.Millisecond)
			require.LessOrEqual(t, time.Since(frozen), 9*time.Second+2*time.Millisecond)
		}
		require.ErrorIs(t, f.agent.Status().LastError, transport.Timeout)
		f.dialer.Cut()
	})
}

// stuckMux is a carrier that takes nothing more, as TCP does when nobody acknowledges.
type stuckMux struct {
	transport.Mux
	stuck *atomic.Bool
}

func (m stuckMux) OpenStream(ctx context.Context) (transport.Stream, error) {
	s, err := m.Mux.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	return stuckStream{s, m}, nil
}

type stuckStream struct {
	transport.Stream
	mux stuckMux
}

func (s stuckStream) Write(p []byte) (int, error) {
	if s.mux.stuck.Load() {
		<-s.mux.Context().Done()
	}
	return s.Stream.Write(p)
}
