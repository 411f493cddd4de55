package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

// way is a transport that a test opens and blocks.
type way struct {
	name string

	mu    sync.Mutex
	err   error // what a dial returns; nil: it works
	dials []time.Time
	muxes []transport.Mux
}

var errNoUDP = errors.New("no answer over UDP")

func (w *way) block(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

func (w *way) dialer() transport.Dialer {
	return named{w.name, through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.dials = append(w.dials, time.Now())
		if w.err != nil {
			return nil, w.err
		}
		m, err := d.Dial(ctx, url)
		if err == nil {
			w.muxes = append(w.muxes, m)
		}
		return m, err
	})}
}

func (w *way) dialled() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.dials...)
}

// breakAll ends what was dialled as a lost carrier does.
func (w *way) breakAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, m := range w.muxes {
		_ = m.CloseWithError(transport.ConnectionLost, "the path is gone")
	}
	w.muxes = nil
}

// climber is an agent with two transports, of which the preferred one is blocked.
func climber(t *testing.T) (f *fixture, better, worse *way) {
	t.Helper()
	better, worse = &way{name: "better", err: errNoUDP}, &way{name: "worse"}
	f = start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
	require.NoError(t, f.agent.Handle(echoService, echo))
	f.session(t)
	synctest.Wait()
	return f, better, worse
}

func current(t *testing.T, a *tunnel.Agent) string {
	t.Helper()
	name := ""
	for _, r := range a.Status().Rungs {
		if r.Current {
			require.Empty(t, name, "one transport at a time")
			name = r.Transport
		}
	}
	return name
}

func TestAnAgentStepsDownAndSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, _, _ := climber(t)
		st := f.agent.Status()
		require.Len(t, st.Rungs, 2)
		require.Equal(t, "better", st.Rungs[0].Transport)
		require.False(t, st.Rungs[0].Current)
		require.ErrorIs(t, st.Rungs[0].Err, errNoUDP)
		require.Equal(t, time.Now(), st.Rungs[0].Failed)
		require.WithinRange(t, st.Rungs[0].NextTry, time.Now().Add(30*time.Second), time.Now().Add(time.Minute+1))
		require.Equal(t, tunnel.Rung{Transport: "worse", Current: true}, st.Rungs[1])
		require.Zero(t, st.Attempts)
	})
}

func TestAnAgentClimbsBackWithoutCuttingAStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, worse := climber(t)
		s := f.session(t)
		old, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		time.Sleep(10 * time.Minute)
		require.Equal(t, "worse", current(t, f.agent))

		better.block(nil)
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, "better", current(t, f.agent))
		require.Equal(t, tunnel.Rung{Transport: "better", Current: true}, f.agent.Status().Rungs[0])
		require.NoError(t, s.Context().Err(), "the session goes on")
		requireEcho(t, old)
		require.Equal(t, 2, f.agent.Stats().Connections)
		fresh, err := s.Open(t.Context(), echoTarget())
		require.NoError(t, err)
		require.NoError(t, old.Close())
		time.Sleep(time.Second)
		synctest.Wait()
		require.Equal(t, 1, f.agent.Stats().Connections, "the old connection ends with its last stream")
		requireEcho(t, fresh)
		require.NoError(t, fresh.Close())
		require.Len(t, worse.dialled(), 1)
	})
}

func TestClimbsAreTriedLessAndLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, _ := climber(t)
		time.Sleep(12 * time.Hour)
		dials := better.dialled()
		require.Greater(t, len(dials), 12)
		bound := time.Minute
		for i := 1; i < len(dials); i++ {
			gap := dials[i].Sub(dials[i-1])
			require.GreaterOrEqual(t, gap, bound/2)
			require.LessOrEqual(t, gap, bound+time.Second)
			bound = min(2*bound, time.Hour)
		}
		require.Equal(t, tunnel.StateConnected, f.agent.Status().State)
	})
}

func TestOpensDuringAClimbAreNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, worse := climber(t)
		better.block(nil)
		for range 20_000 {
			stream, err := f.session(t).Open(t.Context(), echoTarget())
			require.NoError(t, err)
			requireEcho(t, stream)
			require.NoError(t, stream.Close())
			time.Sleep(5 * time.Millisecond)
			if current(t, f.agent) == "better" && len(worse.dialled()) > 0 && f.agent.Stats().Connections == 1 {
				return
			}
		}
		require.Fail(t, "the agent has not moved")
	})
}

func TestARefusalOfTheGatewayIsNoReasonToStepDown(t *testing.T) {
	for _, code := range []transport.Code{transport.Denied, transport.Overloaded, transport.Draining, transport.Duplicate} {
		t.Run(code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				better := &way{name: "better", err: &transport.CloseError{Code: code, Remote: true}}
				worse := &way{name: "worse"}
				f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
				time.Sleep(10 * time.Minute)
				require.Greater(t, len(better.dialled()), 3)
				require.Empty(t, worse.dialled())
				require.ErrorIs(t, f.agent.Status().LastError, code)
			})
		})
	}
}

func TestACertificateThatIsNotTrustedIsAReasonToStepDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		intercepted := &tls.CertificateVerificationError{Err: errors.New("signed by the proxy of the company")}
		better, worse := &way{name: "better", err: errors.Join(transport.Denied, intercepted)}, &way{name: "worse"}
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
		f.session(t)
		synctest.Wait()
		require.Equal(t, "worse", current(t, f.agent))
	})
}

// proxyError is a refusal by something between agent and gateway.
type proxyError struct{ error }

func (proxyError) OnTheWay() bool  { return true }
func (e proxyError) Unwrap() error { return e.error }

func TestARefusalOnTheWayIsAReasonToStepDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		better, worse := &way{name: "better", err: proxyError{transport.Denied}}, &way{name: "worse"}
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
		f.session(t)
		synctest.Wait()
		require.Equal(t, "worse", current(t, f.agent))
	})
}

func TestTheTransportThatWorkedIsTriedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, worse := climber(t)
		s := f.session(t)
		before := len(better.dialled())
		worse.breakAll()
		<-s.Context().Done()
		f.session(t)
		require.Len(t, better.dialled(), before)
		require.Len(t, worse.dialled(), 2)
	})
}

func TestATransportThatBreaksAgainAndAgainLosesItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		better, worse := &way{name: "better"}, &way{name: "worse"}
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
		for range 3 {
			s := f.session(t)
			synctest.Wait()
			require.Equal(t, "better", current(t, f.agent))
			time.Sleep(10 * time.Second)
			better.breakAll()
			<-s.Context().Done()
		}
		f.session(t)
		synctest.Wait()
		require.Equal(t, "worse", current(t, f.agent))
		require.ErrorIs(t, f.agent.Status().Rungs[0].Err, transport.ConnectionLost)

		// It works for a handshake, so it gets its turn again, but less and less often.
		climbs := len(better.dialled())
		for range 500 {
			time.Sleep(time.Minute)
			better.breakAll()
		}
		require.LessOrEqual(t, len(better.dialled())-climbs, 60)
		require.Greater(t, len(better.dialled())-climbs, 3)
	})
}

func TestWhenNothingWorksEveryTransportIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		better, worse := &way{name: "better", err: errNoUDP}, &way{name: "worse", err: errors.New("connection refused")}
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better.dialer(), worse.dialer()}})
		time.Sleep(time.Minute)
		synctest.Wait()
		st := f.agent.Status()
		require.ErrorIs(t, st.LastError, errNoUDP)
		require.ErrorContains(t, st.LastError, "no answer over UDP; connection refused")
		require.Len(t, better.dialled(), len(worse.dialled()))
		require.Equal(t, len(worse.dialled()), st.Attempts)
		require.Empty(t, current(t, f.agent))
	})
}

func TestShutdownEndsAClimb(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hanging atomic.Bool
		better := named{"better", through(func(ctx context.Context, _ string, _ *mem.Dialer) (transport.Mux, error) {
			if !hanging.Load() {
				return nil, errNoUDP
			}
			<-ctx.Done()
			return nil, context.Cause(ctx)
		})}
		worse := &way{name: "worse"}
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{better, worse.dialer()}, HandshakeTimeout: time.Hour})
		f.session(t)
		hanging.Store(true)
		time.Sleep(5 * time.Minute)
		began := time.Now()
		require.NoError(t, f.agent.Shutdown(t.Context()))
		require.Less(t, time.Since(began), 5*time.Second)
		err := <-f.ran
		f.ran <- err // for the clean-up
		require.ErrorIs(t, err, tunnel.ErrAgentClosed)
	})
}

func TestAClimbThatArrivesDuringShutdownIsTurnedAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, _ := climber(t)
		stream, err := f.session(t).Open(t.Context(), echoTarget())
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- f.agent.Shutdown(t.Context()) }()
		synctest.Wait()
		better.block(nil)
		time.Sleep(3 * time.Hour)
		requireEcho(t, stream)
		require.Equal(t, 1, f.agent.Stats().Connections)
		require.NoError(t, stream.Close())
		require.NoError(t, <-down)
	})
}

func TestADrainingGatewayIsNotClimbedTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, better, _ := climber(t)
		require.NoError(t, f.agent.Handle("test.example/other", echo))
		stream, err := f.session(t).Open(t.Context(), echoTarget())
		require.NoError(t, err)
		down := make(chan error, 1)
		go func() { down <- f.gateway.Shutdown(t.Context()) }()
		synctest.Wait()
		dials := len(better.dialled())
		time.Sleep(2 * time.Hour)
		require.Len(t, better.dialled(), dials)
		requireEcho(t, stream)
		require.NoError(t, stream.Close())
		require.NoError(t, <-down)
	})
}
