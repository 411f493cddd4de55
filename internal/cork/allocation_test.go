//go:build !race

// The race detector makes sync.Pool forget things.

package cork_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/cork"
)

func TestACorkAllocatesNothing(t *testing.T) {
	c := cork.New(discard{})
	p := make([]byte, 16<<10)
	require.Zero(t, testing.AllocsPerRun(1000, func() {
		c.Cork()
		for range 6 {
			_, _ = c.Write(p)
		}
		_ = c.Uncork()
	}))
}

type discard struct{ net.Conn }

func (discard) Write(p []byte) (int, error) { return len(p), nil }
