//go:build !race

// The race detector makes sync.Pool forget things.

package mux_test

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// What both sides of a connection allocate in all, over a pipe without TLS.
func TestFramesCostNoAllocation(t *testing.T) {
	agent, gateway := pair(t, overPipe(newIdentities(t))(t), mux.Config{})
	opened := opened(t, agent)
	accepted := accepted(t, gateway)
	go func() {
		_, _ = io.CopyBuffer(struct{ io.Writer }{accepted}, struct{ io.Reader }{accepted}, make([]byte, 32<<10))
	}()
	for _, size := range []int{1, 100, 5000, 32 << 10, 100_000} {
		sent, got := make([]byte, size), make([]byte, size)
		exchange := func() {
			if _, err := opened.Write(sent); err != nil {
				t.Error(err)
			}
			if _, err := io.ReadFull(opened, got); err != nil {
				t.Error(err)
			}
		}
		for range 100 {
			exchange()
		}
		require.Less(t, testing.AllocsPerRun(1000, exchange), 0.5, "%d bytes there and back", size)
	}
}

func TestAStreamCostsFewAllocations(t *testing.T) {
	agent, gateway := pair(t, overPipe(newIdentities(t))(t), mux.Config{})
	use := func() {
		o, err := agent.OpenStream(t.Context())
		require.NoError(t, err)
		_, err = o.Write([]byte("x"))
		require.NoError(t, err)
		a, err := gateway.AcceptStream(t.Context())
		require.NoError(t, err)
		for _, s := range []transport.Stream{o, a} {
			require.NoError(t, s.Close())
		}
	}
	for range 100 {
		use()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(1000, use), 8.0)
}
