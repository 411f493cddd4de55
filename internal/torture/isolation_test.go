package torture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

// stalls are how many streams of one session nobody reads: in a full run all of them.
var stalls = []int{1, 16, 64, 256, 1000}

func TestStalledStreamsHurtNobodyElse(t *testing.T) {
	beside(t)
	onEachCarrier(t, func(t *testing.T, c carrier) {
		for _, n := range stalls[:scaled(t, len(stalls), 3, "counts of stalled streams")] {
			t.Run(fmt.Sprintf("stalled=%d", n), func(t *testing.T) {
				w := newWard(t, c)
				w.stall(t, n)
				size := int64(scaled(t, 64, 4, "MiB for the healthy stream")) << 20
				pings := w.watchPings()
				took, err := w.read(soon(t), size)
				require.NoError(t, err)
				opens := w.opens(t, scaled(t, 1000, 50, "opens"))
				rtts := pings()
				t.Logf("healthy stream: %.0f MB/s; opens: p50 %v, p99 %v, max %v; %d pings: p99 %v",
					float64(size)/1e6/took.Seconds(), quantile(opens, 0.5), quantile(opens, 0.99), quantile(opens, 1), len(rtts), quantile(rtts, 0.99))
				require.NoError(t, w.session.Context().Err(), "the session lives")
				require.NotEmpty(t, rtts, "pings are answered")
				require.GreaterOrEqual(t, w.gateway.Stats().Streams, n, "the stalled streams live")
			})
		}
	})
}

// BenchmarkStalledStreams compares a healthy stream of a session that has stalled
// ones with one of a session that has none, by turns.
func BenchmarkStalledStreams(b *testing.B) {
	for _, c := range carriers {
		for _, n := range stalls {
			b.Run(fmt.Sprintf("%s/stalled=%d", c.name, n), func(b *testing.B) {
				alone, beside := newWard(b, c), newWard(b, c)
				beside.stall(b, n)
				const size = 64 << 20
				b.SetBytes(size)
				var baseline, stalled time.Duration
				pings := beside.watchPings()
				for b.Loop() {
					b.StopTimer()
					took, err := alone.read(b.Context(), size)
					require.NoError(b, err)
					baseline += took
					b.StartTimer()
					took, err = beside.read(b.Context(), size)
					require.NoError(b, err)
					stalled += took
				}
				b.ReportMetric(100*baseline.Seconds()/stalled.Seconds(), "%-of-baseline")
				opens := beside.opens(b, 500)
				b.ReportMetric(float64(quantile(opens, 0.99).Microseconds())/1000, "open-p99-ms")
				b.ReportMetric(float64(quantile(alone.opens(b, 500), 0.99).Microseconds())/1000, "open-p99-alone-ms")
				b.ReportMetric(float64(quantile(pings(), 0.99).Microseconds())/1000, "ping-p99-ms")
			})
		}
	}
}

// ward is a session for healthy and stalled streams.
type ward struct {
	gateway *tunnel.Gateway
	agent   *tunnel.Agent
	session tunnel.Session
	stalled sync.WaitGroup // streams that are filling up
}

const stallService = "torture.example/stall" // sends until nothing moves

func newWard(tb testing.TB, c carrier) *ward {
	tb.Helper()
	// Pings often enough to measure, and patience enough for a machine under load.
	liveness := tunnel.Liveness{Busy: 50 * time.Millisecond, Idle: 50 * time.Millisecond, Misses: 400}
	ids := newIdentities(tb)
	l, err := c.listen(ids.gateway)
	require.NoError(tb, err)
	w := &ward{gateway: &tunnel.Gateway{Liveness: liveness, MaxOpensPerSecond: -1}}
	w.agent = &tunnel.Agent{
		Gateways: []string{urlOf(l.Addr())}, Dialers: []transport.Dialer{c.dialer(ids.agent)}, Policy: policy.InsecureAllowAll(), MaxOpensPerSecond: -1, Liveness: liveness,
	}
	require.NoError(tb, offer(w.agent.Handle))
	require.NoError(tb, w.agent.Handle(stallService, tunnel.HandlerFunc(func(_ context.Context, in *tunnel.Incoming) {
		if s, err := in.Accept(nil); err == nil {
			w.fill(s)
			_ = s.Close()
		}
	})))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = w.gateway.Serve(ctx, l) })
	running.Go(func() { _ = w.agent.Run(ctx) })
	tb.Cleanup(func() {
		_ = w.gateway.Close()
		cancel()
		running.Wait()
	})
	w.session, err = w.gateway.WaitSession(soon(tb), "agent-1")
	require.NoError(tb, err)
	return w
}

// fill writes until the stream ends. It reports, once, that nothing moves any more.
func (w *ward) fill(s transport.Stream) {
	stuck := sync.OnceFunc(w.stalled.Done)
	defer stuck()
	out := &writer{Writer: s}
	for {
		_ = s.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		err := out.write(4<<10, 4<<10)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		} else if err != nil {
			return
		}
	}
	stuck()
	_ = s.SetWriteDeadline(time.Time{})
	for out.write(1<<20, 4<<10) == nil {
		continue
	}
}

// stall opens n streams that nobody reads, half of them in each direction, and
// returns when they are full.
func (w *ward) stall(tb testing.TB, n int) {
	tb.Helper()
	for i := range n {
		w.stalled.Add(1)
		service := stallService
		if i%2 == 1 {
			service = sinkService
		}
		s, err := w.session.Open(soon(tb), tunnel.Target{Service: service})
		require.NoError(tb, err)
		if i%2 == 1 {
			go w.fill(s)
		}
	}
	w.stalled.Wait()
}

// read measures a stream whose reader keeps up.
func (w *ward) read(ctx context.Context, size int64) (time.Duration, error) {
	s, err := w.session.Open(ctx, tunnel.Target{Service: floodService})
	if err != nil {
		return 0, err
	}
	defer func() { _ = s.Reset(transport.Canceled) }()
	_ = s.SetDeadline(time.Now().Add(patience))
	r := &reader{Reader: s}
	began := time.Now()
	err = r.until(size)
	return time.Since(began), err
}

// opens measures how long it takes to open a stream and to hear its echo.
func (w *ward) opens(tb testing.TB, n int) []time.Duration {
	tb.Helper()
	var took []time.Duration
	for range n {
		began := time.Now()
		s, err := w.session.Open(soon(tb), tunnel.Target{Service: echoService})
		require.NoError(tb, err)
		_ = s.SetDeadline(time.Now().Add(patience))
		one := []byte{'1'}
		_, err = s.Write(one)
		require.NoError(tb, err)
		_, err = io.ReadFull(s, one)
		require.NoError(tb, err)
		took = append(took, time.Since(began))
		require.NoError(tb, s.Close())
	}
	return took
}

// watchPings collects round trips of the agent's pings until the function that it
// returns is called, and then up to the first.
func (w *ward) watchPings() (stop func() []time.Duration) {
	asking := make(chan struct{})
	result := make(chan []time.Duration, 1)
	go func() {
		over := (<-chan struct{})(asking)
		var rtts []time.Duration
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		asked := false
		for giveUp := time.Now().Add(patience); time.Now().Before(giveUp) && (!asked || len(rtts) == 0); {
			select {
			case <-tick.C:
			case <-over:
				asked, over = true, nil
			}
			if rtt := w.agent.Status().RTT; rtt > 0 && (len(rtts) == 0 || rtts[len(rtts)-1] != rtt) {
				rtts = append(rtts, rtt)
			}
		}
		result <- rtts
	}()
	return func() []time.Duration {
		close(asking)
		return <-result
	}
}

// quantile returns the q-th of the durations, or zero if there are none.
func quantile(d []time.Duration, q float64) time.Duration {
	if len(d) == 0 {
		return 0
	}
	d = slices.Clone(d)
	slices.Sort(d)
	return d[min(len(d)-1, int(q*float64(len(d))))].Round(time.Microsecond)
}
