package tunnel_test

import (
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
	"github.com/outgate/outgate/tunnel"
)

func TestAnAgentComesBackAfterACutConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		for range 20 {
			s := f.session(t)
			stream, err := s.Open(t.Context(), echoTarget())
			require.NoError(t, err)
			requireEcho(t, stream)
			f.dialer.Cut()
			<-s.Context().Done()
			_, err = stream.Read(make([]byte, 1))
			require.ErrorIs(t, err, transport.ConnectionLost)
			_, err = s.Open(t.Context(), echoTarget())
			require.ErrorIs(t, err, tunnel.ErrNotConnected)
			require.NoError(t, stream.Close())
		}
		f.session(t)
	})
}

func TestReconnectsSlowDownAndStartAgainAfterAStableConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			up    bool
			gaps  []time.Duration
			last  time.Time
			count int
		)
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
			if !last.IsZero() {
				gaps = append(gaps, time.Since(last))
			}
			last = time.Now()
			count++
			if !up && count <= 40 {
				return nil, errors.New("no route")
			}
			up = true
			return d.Dial(ctx, url)
		})}})
		s := f.session(t)
		require.Len(t, gaps, 40)
		bound, longest := 500*time.Millisecond, time.Duration(0)
		for _, gap := range gaps {
			require.LessOrEqual(t, gap, bound+1)
			bound = min(2*bound, 30*time.Second)
			longest = max(longest, gap)
		}
		require.Greater(t, longest, 10*time.Second, "the delays grow") // 33 draws up to 30 s

		time.Sleep(61 * time.Second)
		cut := time.Now()
		f.dialer.Cut()
		<-s.Context().Done()
		f.session(t)
		require.LessOrEqual(t, time.Since(cut), 501*time.Millisecond, "a stable connection resets the backoff")
	})
}

func TestTheNextGatewayIsTried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, &tunnel.Agent{
			Gateways: []string{"https://down.example.com", "https://up.example.com"},
			Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
				if url != "https://up.example.com" {
					return nil, errors.New("down")
				}
				return d.Dial(ctx, url)
			})},
		})
		f.session(t)
		synctest.Wait()
		st := f.agent.Status()
		require.Equal(t, "https://up.example.com", st.Gateway)
		require.Equal(t, tunnel.StateConnected, st.State)
		require.Zero(t, st.Attempts)
		require.ErrorContains(t, st.LastError, "down")
	})
}

// permanentError cannot be mended by trying again.
type permanentError struct{ error }

func (permanentError) Permanent() bool { return true }
func (e permanentError) Unwrap() error { return e.error }

func TestAPermanentErrorEndsRun(t *testing.T) {
	want := errors.New("wrong pin")
	a := &tunnel.Agent{
		Gateways: []string{"https://gateway.example.com"},
		Dialers: []transport.Dialer{dialFunc(func(context.Context, string) (transport.Mux, error) {
			return nil, permanentError{want}
		})},
	}
	require.ErrorIs(t, a.Run(t.Context()), want)
	require.Equal(t, tunnel.StateIdle, a.Status().State)
}

func TestARevokedAgentDoesNotComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		accepted := make(chan transport.Mux, 1)
		f := start(t, &tunnel.Gateway{Identify: func(tls.ConnectionState) (string, error) { return "agent-1", nil }},
			&tunnel.Agent{Dialers: []transport.Dialer{dialFunc(func(ctx context.Context, url string) (transport.Mux, error) {
				// A second gateway behind the same name, which this test plays itself.
				own := &mem.Listener{}
				m, err := (&mem.Dialer{Listener: own}).Dial(ctx, url)
				if err != nil {
					return nil, err
				}
				theirs, err := own.Accept(ctx)
				accepted <- theirs
				return m, err
			})}})
		gateway := <-accepted
		require.NoError(t, gateway.CloseWithError(transport.Revoked, "the certificate was revoked"))
		err := <-f.ran
		f.ran <- err // for the clean-up
		require.ErrorIs(t, err, transport.Revoked)
	})
}

// busyError is a server's request to come back later.
type busyError struct{ error }

func (busyError) RetryDelay() time.Duration { return 20 * time.Second }

func TestTheServersRetryDelayIsHonoured(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := false
		began := time.Now()
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{through(func(ctx context.Context, url string, d *mem.Dialer) (transport.Mux, error) {
			if !refused {
				refused = true
				return nil, busyError{errors.New("503")}
			}
			return d.Dial(ctx, url)
		})}})
		f.session(t)
		require.GreaterOrEqual(t, time.Since(began), 20*time.Second)
		require.LessOrEqual(t, time.Since(began), 21*time.Second)
	})
}

func TestRunRefusesAnAgentThatCannotWork(t *testing.T) {
	err := (&tunnel.Agent{}).Run(t.Context())
	require.ErrorContains(t, err, "set Gateways")
	err = (&tunnel.Agent{Gateways: []string{"https://g"}}).Run(t.Context())
	require.ErrorContains(t, err, "set Dialers")
}

func TestRunReturnsTheCauseOfItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		why := errors.New("the product stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		a := &tunnel.Agent{
			Gateways: []string{"https://gateway.example.com"},
			Dialers: []transport.Dialer{dialFunc(func(ctx context.Context, _ string) (transport.Mux, error) {
				<-ctx.Done()
				return nil, context.Cause(ctx)
			})},
		}
		ran := make(chan error, 1)
		go func() { ran <- a.Run(ctx) }()
		synctest.Wait()
		require.Equal(t, tunnel.StateConnecting, a.Status().State)
		cancel(why)
		require.ErrorIs(t, <-ran, why)
	})
}

func TestWaitConnectedSaysWhyItWaitedInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, &tunnel.Agent{Dialers: []transport.Dialer{dialFunc(func(context.Context, string) (transport.Mux, error) {
			return nil, errors.New("no route to the gateway")
		})}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := f.agent.WaitConnected(ctx)
		require.ErrorIs(t, err, tunnel.ErrNotConnected)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorContains(t, err, "no route to the gateway")
		_, err = f.agent.Open(t.Context(), echoTarget())
		require.ErrorIs(t, err, tunnel.ErrNotConnected)
	})
}
