package tunnel_test

import (
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

func TestCallersAreSlowedToTheRateAndNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, nil, nil)
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		began := time.Now()
		var callers sync.WaitGroup
		for range 64 {
			callers.Go(func() {
				for range 20 {
					stream, err := s.Open(t.Context(), echoTarget())
					require.NoError(t, err)
					require.NoError(t, stream.Close())
				}
			})
		}
		callers.Wait()
		took := time.Since(began) // 1280 streams, of which 200 are free
		require.GreaterOrEqual(t, took, 5300*time.Millisecond)
		require.LessOrEqual(t, took, 5500*time.Millisecond)
	})
}

func TestTheRateOfOpensCanBeRaisedAndTakenAway(t *testing.T) {
	for perSecond, want := range map[int]time.Duration{1000: 280 * time.Millisecond, -1: 0} {
		synctest.Test(t, func(t *testing.T) {
			f := start(t, nil, &tunnel.Agent{MaxOpensPerSecond: perSecond})
			require.NoError(t, f.agent.Handle(echoService, echo))
			s := f.session(t)
			began := time.Now()
			for range 1280 {
				stream, err := s.Open(t.Context(), echoTarget())
				require.NoError(t, err)
				require.NoError(t, stream.Close())
			}
			require.InDelta(t, want, time.Since(began), float64(5*time.Millisecond))
		})
	}
}

func TestAFloodOfOpensIsRefusedWithOverloadedAndLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logCounter
		f := start(t, nil, &tunnel.Agent{Logger: logs.logger()})
		require.NoError(t, f.agent.Handle(echoService, echo))
		s := f.session(t)
		lines := len(logs.lines())
		var (
			callers         sync.WaitGroup
			opened, refused atomic.Int64
		)
		began := time.Now()
		for range 300 { // who do not care
			callers.Go(func() {
				for time.Since(began) < 3*time.Second {
					stream, err := s.Open(t.Context(), echoTarget())
					if err == nil {
						opened.Add(1)
						_ = stream.Close()
						continue
					}
					e := openError(t, err)
					require.Equal(t, transport.Overloaded, e.Code)
					require.True(t, e.Remote)
					require.True(t, e.Temporary())
					require.ErrorContains(t, err, "MaxOpensPerSecond")
					refused.Add(1)
				}
			})
		}
		callers.Wait()
		require.InDelta(t, 800, opened.Load(), 200, "others do not live from the rate of those that were let in")
		require.Positive(t, refused.Load())
		require.LessOrEqual(t, refused.Load(), int64(5*1024), "a refused stream keeps its slot for a second")
		require.LessOrEqual(t, len(logs.lines())-lines, 2)
		require.NoError(t, s.Context().Err(), "nobody is cut")
	})
}

func TestAFloodOfResetStreamsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var logs logCounter
		f := start(t, &tunnel.Gateway{Logger: logs.logger()}, nil)
		f.session(t)
		mux, err := (&mem.Dialer{Listener: f.listener, Name: "mallory"}).Dial(t.Context(), "")
		require.NoError(t, err)
		rawAgent(t, mux, "i")
		began := time.Now()
		for range 6000 {
			s, err := mux.OpenStream(t.Context())
			require.NoError(t, err)
			_, _ = s.Write([]byte{0})
			require.NoError(t, s.Reset(transport.Canceled))
		}
		require.GreaterOrEqual(t, time.Since(began), 4*time.Second, "a slot comes back when its acceptor says so")
		require.LessOrEqual(t, len(logs.lines()), 2)
		require.NoError(t, mux.Context().Err())
		require.NoError(t, mux.CloseWithError(transport.NoError, ""))
	})
}
