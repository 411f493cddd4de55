package transporttest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func stallTests() []test {
	return []test{
		{"readers that stopped, on streams that the writer opened", func(t *trial) { stall(t, false) }},
		{"readers that stopped, on streams that the reader opened", func(t *trial) { stall(t, true) }},
	}
}

// responsive is how long a small exchange may take beside stalled streams. On an
// idle machine it takes less than a millisecond; frozen, it never ends.
const responsive = 5 * time.Second

func stall(t *trial, readerOpens bool) {
	t.eachWay(func(c oneWay) {
		ping, pinged := t.open(c) // open before the trouble starts
		go echoStream(pinged)

		count := t.stalled()
		var writers []transport.Stream
		for range count {
			writer, accepted := t.open(c)
			if readerOpens {
				writer = accepted
			}
			writers = append(writers, writer)
		}
		var full []<-chan error
		for _, w := range writers {
			full = append(full, async(func() error {
				_, err := fill(w, 200*time.Millisecond, t.most())
				return err
			}))
		}
		for i, ch := range full {
			require.NoError(t, wait(t, ch, fmt.Sprintf("%s: fill stream %d", c.name, i)), c.name)
		}
		var pushing <-chan result
		for _, w := range writers { // keep on pushing
			require.NoError(t, w.SetWriteDeadline(time.Time{}), c.name)
			pushing = pendingWrite(t, w)
		}
		stays(t, pushing, shortly, c.name+": a Write of too much ended although nobody reads")

		for range 5 {
			what := fmt.Sprintf("%s: beside %d stalled streams, a message on one that was open before", c.name, count)
			require.NoError(t, wait(t, async(func() error { return roundTrip(ping, responsive) }), what), what)
			what = fmt.Sprintf("%s: beside %d stalled streams, a new one", c.name, count)
			start := time.Now()
			require.NoError(t, wait(t, async(func() error { return t.healthy(c) }), what), what)
			require.Less(t, time.Since(start), responsive, what)
		}
		start := time.Now()
		require.NoError(t, c.opener.CloseWithError(transport.NoError, ""))
		require.Less(t, time.Since(start), t.patience, "%s: CloseWithError beside stalled streams", c.name)
	})
}

// stalled is how many streams to stall, with room left for healthy ones.
func (t *trial) stalled() int {
	n := 256
	if testing.Short() {
		n = 64
	}
	if limit := t.harness.MaxStreams; limit > 0 {
		n = min(n, limit-4)
	}
	return max(n, 1)
}
