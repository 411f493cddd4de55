//go:build linux

package netlab

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

// BenchmarkLossyWire compares the carriers over 50 ms of round trip with 2 % loss in each
// direction, and without loss: 16 streams that send all they can both ways, and 16 callers
// that ask something small.
func BenchmarkLossyWire(b *testing.B) {
	for _, loss := range []float64{0, 0.02} {
		for _, c := range carriers {
			name := c.name + "/clean"
			if loss > 0 {
				name = c.name + "/loss=2%"
			}
			cfg := sceneConfig{agents: 1, wire: &testnet.Conditions{Delay: 25 * time.Millisecond, Loss: loss}}
			b.Run(name+"/bulk", func(b *testing.B) {
				s := newScene(b, c, cfg)
				const size = 256 << 10
				b.SetBytes(2 * benchStreams * size)
				b.ResetTimer()
				for b.Loop() {
					s.each(b, func() error {
						return s.transfer(s.agents[0], flow{Size: size, Chunk: 32 << 10}, 5*time.Minute)
					})
				}
			})
			b.Run(name+"/ask", func(b *testing.B) {
				s := newScene(b, c, cfg)
				var mu sync.Mutex
				var took []time.Duration
				b.ResetTimer()
				for b.Loop() {
					s.each(b, func() error {
						for range 20 {
							began := time.Now()
							if err := s.transfer(s.agents[0], flow{Size: 1000, Chunk: 1000}, time.Minute); err != nil {
								return err
							}
							mu.Lock()
							took = append(took, time.Since(began))
							mu.Unlock()
						}
						return nil
					})
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Milliseconds()), "p50-ms")
				b.ReportMetric(float64(took[len(took)*99/100].Milliseconds()), "p99-ms")
			})
		}
	}
}

const benchStreams = 16

// each runs f for every stream at once.
func (s *scene) each(b *testing.B, f func() error) {
	failed := make(chan error, benchStreams)
	for range benchStreams {
		go func() { failed <- f() }()
	}
	for range benchStreams {
		require.NoError(b, <-failed)
	}
}
