package quic_test

import (
	"errors"
	"sync"
	"testing"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

// BenchmarkUnreadFrames measures what a byte costs this side that nobody reads, by
// the size of the frame it came in. The peer chooses the size.
func BenchmarkUnreadFrames(b *testing.B) {
	b.Run("1B", func(b *testing.B) { benchmarkUnreadFrames(b, 1) })
	b.Run("16B", func(b *testing.B) { benchmarkUnreadFrames(b, 16) })
	b.Run("1000B", func(b *testing.B) { benchmarkUnreadFrames(b, 1000) })
}

func benchmarkUnreadFrames(b *testing.B, size int) {
	const (
		streams = 32
		each    = 16_000 // what a fresh stream takes
	)
	var held int64
	for b.Loop() {
		ca := testca.New(b)
		l := listen(b, ca, quic.ListenConfig{})
		conn, err := hostileAgent(b, ca, l, "outgate/1")
		require.NoError(b, err)
		victim, err := l.Accept(soon(b))
		require.NoError(b, err)
		before := heap()
		var writers sync.WaitGroup
		for range streams {
			s, err := conn.OpenStream()
			require.NoError(b, err)
			writers.Go(func() { writeFrames(s, make([]byte, each), size) })
		}
		writers.Wait()
		held += heap() - before
		require.NoError(b, victim.CloseWithError(transport.NoError, ""))
		_ = conn.CloseWithError(0, "")
	}
	b.ReportMetric(float64(held)/float64(b.N*streams*each), "heap-B/B")
}

// writeFrames writes p in frames of one size. It returns when they are on their way.
func writeFrames(s *quicgo.Stream, p []byte, size int) {
	for len(p) > 0 {
		n, err := s.WriteWithLimit(p, func(n int) int { return min(n, size) })
		if err != nil && !errors.Is(err, quicgo.ErrWriteLimitReached) {
			return
		}
		p = p[n:]
	}
}
