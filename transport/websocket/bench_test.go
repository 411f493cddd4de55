package websocket_test

import (
	"errors"
	"io"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/websocket"
)

// BenchmarkStalled measures a round trip of 64 bytes beside 64 streams whose
// readers have stopped, and what those hold.
func BenchmarkStalled(b *testing.B) {
	for name, over := range multiplexers {
		b.Run(name, func(b *testing.B) { benchmarkStalled(b, over) })
	}
}

func benchmarkStalled(b *testing.B, over websocket.Multiplexer) {
	ca := testca.New(b)
	agent, gateway := connect(b, listen(b, ca.Gateway(), websocket.Config{Multiplexer: over}), &websocket.Dialer{TLSClientConfig: ca.Agent("agent-1")})
	healthy, echoed := open(b, gateway, agent)
	for _, s := range []transport.Stream{healthy, echoed} {
		_ = s.SetDeadline(time.Time{})
	}
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{echoed}, struct{ io.Reader }{echoed}, make([]byte, 128))
	}()
	before := heapInUse()
	for range 64 {
		s, _ := open(b, gateway, agent)
		_ = s.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		if _, err := s.Write(make([]byte, 32<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			b.Fatal(err)
		}
	}
	held := heapInUse() - before
	msg, times := make([]byte, 64), make([]time.Duration, 0, b.N)
	for b.Loop() {
		start := time.Now()
		if _, err := healthy.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(healthy, msg); err != nil {
			b.Fatal(err)
		}
		times = append(times, time.Since(start))
	}
	slices.Sort(times)
	b.ReportMetric(float64(times[len(times)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(times[len(times)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64(held)/(1<<20), "MiB-held")
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // the first leaves what sat in a sync.Pool
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
