//go:build linux

package torture

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/tunnel"
)

func TestSessionsAndStreamsLeaveNothingBehind(t *testing.T) {
	const (
		streams = 10 // in a session
		workers = 4
		// The heap may not grow by more than this for each session: a forgotten entry of
		// a map is more.
		slope = 64
	)
	onEachCarrier(t, func(t *testing.T, c carrier) {
		ca := testca.New(t)
		gateway := ca.Gateway()
		agents := make(chan *tls.Config, workers)
		for i := range workers {
			agents <- ca.Agent(fmt.Sprintf("agent-%d", i))
		}
		run := func(t *testing.T, n int, watch func(done int)) {
			l, err := c.listen(gateway)
			require.NoError(t, err)
			g := &tunnel.Gateway{MaxOpensPerSecond: -1}
			require.NoError(t, offer(g.Handle))
			served := make(chan error, 1)
			go func() { served <- g.Serve(context.Background(), l) }()
			for done := 0; done < n; done += n / 5 {
				inParallel(t, n/5, workers, func(int) error {
					config := <-agents
					defer func() { agents <- config }()
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					return oneSession(ctx, c, config, g, urlOf(l.Addr()), streams)
				})
				watch(done + n/5)
			}
			require.NoError(t, g.Close())
			require.ErrorIs(t, <-served, tunnel.ErrGatewayClosed)
		}
		run(t, 2*workers*5, func(int) {}) // what is made once and kept is made here
		files := openFiles(t)
		goroutines := goleak.IgnoreCurrent()

		sessions := scaled(t, 10_000, 200, fmt.Sprintf("sessions of %d streams", streams))
		var heaps []int64
		run(t, sessions, func(int) { heaps = append(heaps, heapInUse()) })

		goleak.VerifyNone(t, goroutines)
		require.Equal(t, files, openFiles(t), "open files")
		growth := float64(heaps[len(heaps)-1]-heaps[0]) / (float64(sessions) * 4 / 5)
		t.Logf("heap in use after each fifth: %d KiB; %.1f bytes for each session", kibi(heaps), growth)
		if full {
			require.Less(t, growth, float64(slope), "bytes of heap for each session that is over")
		}
	})
}

// oneSession connects an agent, has both sides open streams that carry something, and
// ends it.
func oneSession(ctx context.Context, c carrier, config *tls.Config, g *tunnel.Gateway, url string, streams int) error {
	a := &tunnel.Agent{Gateways: []string{url}, Dialers: []transport.Dialer{c.dialer(config)}, Policy: policy.InsecureAllowAll(), MaxOpensPerSecond: -1}
	if err := offer(a.Handle); err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = a.Run(running)
	}()
	defer func() {
		stop()
		<-ran
	}()
	if err := a.WaitConnected(ctx); err != nil {
		return err
	}
	s, err := g.WaitSession(ctx, config.Certificates[0].Leaf.Subject.CommonName)
	if err != nil {
		return err
	}
	for i := range streams {
		open := a.Open
		if i%2 == 0 {
			open = s.Open
		}
		if err := oneEcho(ctx, open); err != nil {
			return fmt.Errorf("stream %d: %w", i, err)
		}
	}
	return nil
}

// oneEcho opens a stream, hears an echo and closes it.
func oneEcho(ctx context.Context, open func(context.Context, tunnel.Target) (transport.Stream, error)) error {
	s, err := open(ctx, tunnel.Target{Service: echoService})
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	said := []byte("hello")
	if _, err := s.Write(said); err != nil {
		return err
	}
	_, err = io.ReadFull(s, said)
	return err
}

// openFiles counts the file descriptors of this process.
func openFiles(tb testing.TB) int {
	tb.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	require.NoError(tb, err)
	return len(entries)
}

// heapInUse is what is reachable. A second collection empties the pools.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func kibi(bytes []int64) []int64 {
	out := make([]int64, len(bytes))
	for i, b := range bytes {
		out[i] = b >> 10
	}
	return out
}
