package transporttest

import (
	"fmt"
	"io"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/outgate/outgate/transport"
)

// Benchmark measures what users of a tunnel feel: how long a stream takes to
// open, how much passes, how long a small exchange takes, and what an idle
// connection and an idle stream cost in memory. Streams are opened by the
// accepted side, as a gateway does.
func Benchmark(b *testing.B, h Harness) {
	b.Helper()
	if h.Connect == nil {
		b.Fatal("transporttest: Harness.Connect is nil")
	}
	b.Run("Open", func(b *testing.B) { benchmarkOpen(b, h, 1) })
	b.Run("Open64", func(b *testing.B) { benchmarkOpen(b, h, 64) })
	b.Run("RoundTrip", func(b *testing.B) { benchmarkRoundTrip(b, h) })
	for _, streams := range []int{1, 64} {
		b.Run(fmt.Sprintf("ToDialed%d", streams), func(b *testing.B) { benchmarkThroughput(b, h, streams, true) })
		b.Run(fmt.Sprintf("ToAccepted%d", streams), func(b *testing.B) { benchmarkThroughput(b, h, streams, false) })
	}
	b.Run("IdleConnection", func(b *testing.B) { benchmarkIdleConnection(b, h) })
	b.Run("IdleStream", func(b *testing.B) { benchmarkIdleStream(b, h) })
}

// connectBench makes a connection that ends with b.
func connectBench(b *testing.B, h Harness) Pair {
	b.Helper()
	p := h.Connect(b)
	b.Cleanup(func() {
		_ = p.Dialed.CloseWithError(transport.NoError, "end of benchmark") // already closed is fine
		_ = p.Accepted.CloseWithError(transport.NoError, "end of benchmark")
	})
	return p
}

// echoBench answers every stream of m until m ends.
func echoBench(b *testing.B, m transport.Mux) {
	for {
		s, err := m.AcceptStream(b.Context())
		if err != nil {
			return
		}
		go func() {
			// A small buffer of our own, as the one of io.Copy would show in the
			// figures of every stream.
			_, _ = io.CopyBuffer(struct{ io.Writer }{s}, struct{ io.Reader }{s}, make([]byte, 128))
			_ = s.Close() // an error shows at the other end
		}()
	}
}

// benchmarkOpen measures open, one byte there and back, and close, in the given
// number of goroutines.
func benchmarkOpen(b *testing.B, h Harness, goroutines int) {
	p := connectBench(b, h)
	go echoBench(b, p.Dialed)
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for left.Add(-1) >= 0 {
				if err := openOnce(b, p.Accepted); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "opens/s")
}

func openOnce(b *testing.B, m transport.Mux) error {
	s, err := m.OpenStream(b.Context())
	if err != nil {
		return fmt.Errorf("OpenStream: %w", err)
	}
	defer s.Close()
	p := [1]byte{greeting}
	if _, err := s.Write(p[:]); err != nil {
		return fmt.Errorf("Write: %w", err)
	}
	if _, err := io.ReadFull(s, p[:]); err != nil {
		return fmt.Errorf("Read: %w", err)
	}
	return nil
}

// benchmarkRoundTrip measures 64 bytes there and back on an open stream.
func benchmarkRoundTrip(b *testing.B, h Harness) {
	p := connectBench(b, h)
	go echoBench(b, p.Dialed)
	s, err := p.Accepted.OpenStream(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	msg := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Write(msg); err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(s, msg); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmarkThroughput measures bulk data in one direction, spread over streams;
// one operation is a Write of 32 KiB.
func benchmarkThroughput(b *testing.B, h Harness, streams int, toDialed bool) {
	const size = 32 << 10
	p := connectBench(b, h)
	var writers, readers []transport.Stream
	for range streams {
		opened, accepted, err := openBench(b, p)
		if err != nil {
			b.Fatal(err)
		}
		if !toDialed {
			opened, accepted = accepted, opened
		}
		writers, readers = append(writers, opened), append(readers, accepted)
	}
	b.SetBytes(size)
	b.ReportAllocs()
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for _, w := range writers {
		wg.Go(func() {
			data := make([]byte, size)
			for left.Add(-1) >= 0 {
				if _, err := w.Write(data); err != nil {
					b.Error(err)
					return
				}
			}
			if err := w.CloseWrite(); err != nil {
				b.Error(err)
			}
		})
	}
	var got atomic.Int64
	for _, r := range readers {
		wg.Go(func() {
			// Reader alone: a WriterTo would choose the size of its pieces.
			n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, make([]byte, size))
			got.Add(n)
			if err != nil {
				b.Error(err)
			}
		})
	}
	wg.Wait()
	if got.Load() != int64(b.N)*size {
		b.Errorf("%d bytes arrived, written were %d", got.Load(), int64(b.N)*size)
	}
}

// openBench opens a stream from the accepted side and accepts it.
func openBench(b *testing.B, p Pair) (opened, accepted transport.Stream, err error) {
	if opened, err = p.Accepted.OpenStream(b.Context()); err != nil {
		return nil, nil, err
	}
	if _, err = opened.Write([]byte{greeting}); err != nil {
		return nil, nil, err
	}
	if accepted, err = p.Dialed.AcceptStream(b.Context()); err != nil {
		return nil, nil, err
	}
	_, err = io.ReadFull(accepted, make([]byte, 1))
	return opened, accepted, err
}

// benchmarkIdleConnection reports the memory of both sides of a connection, with
// no stream. One operation is 32 connections, made and ended.
func benchmarkIdleConnection(b *testing.B, h Harness) {
	const count = 32
	var bytes, goroutines float64
	for range b.N {
		b.StopTimer()
		conns := newTrial(b, h) // ends its connections when it ends
		before, goBefore := memoryInUse(), runtime.NumGoroutine()
		b.StartTimer()
		failures := conns.run(func(t *trial) {
			for range count {
				t.connect()
			}
			bytes += float64(memoryInUse()-before) / count
			goroutines += float64(runtime.NumGoroutine()-goBefore) / count
		})
		for _, f := range failures {
			b.Fatal(f)
		}
	}
	b.ReportMetric(bytes/float64(b.N), "B/conn")
	b.ReportMetric(goroutines/float64(b.N), "goroutines/conn")
}

// benchmarkIdleStream reports the memory of both sides of a stream that has
// carried one byte. One operation is up to 512 streams, opened and closed.
func benchmarkIdleStream(b *testing.B, h Harness) {
	count := 512
	if h.MaxStreams > 0 {
		count = min(count, h.MaxStreams)
	}
	p := connectBench(b, h)
	var bytes, goroutines float64
	for range b.N {
		before, goBefore := memoryInUse(), runtime.NumGoroutine()
		var streams []transport.Stream
		for range count {
			opened, accepted, err := openBench(b, p)
			if err != nil {
				b.Fatal(err)
			}
			streams = append(streams, opened, accepted)
		}
		bytes += float64(memoryInUse()-before) / float64(count)
		goroutines += float64(runtime.NumGoroutine()-goBefore) / float64(count)
		for _, s := range streams {
			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(bytes/float64(b.N), "B/stream")
	b.ReportMetric(goroutines/float64(b.N), "goroutines/stream")
}

// memoryInUse is the heap and the stacks after a collection.
func memoryInUse() int64 {
	runtime.GC()
	runtime.GC() // the first leaves what had a finalizer or sat in a sync.Pool
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}
