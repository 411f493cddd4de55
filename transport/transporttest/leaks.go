package transporttest

import (
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func leakTests() []test {
	return []test{
		{"300 streams opened and ended leave no goroutine", streamLeaks},
		{"connections opened and ended leave no goroutine", connectionLeaks},
	}
}

func streamLeaks(t *trial) {
	for _, c := range t.ways() { // one after the other: who counts wants to be alone
		t.requireHealthy(c) // what a connection starts on demand has started
		before := runtime.NumGoroutine()
		const cycles = 300
		for i := range cycles {
			opened, accepted := t.open(c)
			switch i % 3 {
			case 0:
				require.NoError(t, opened.Close(), c.name)
				require.NoError(t, accepted.Close(), c.name)
			case 1:
				require.NoError(t, opened.Reset(transport.Canceled), c.name)
				require.NoError(t, accepted.Close(), c.name)
			case 2:
				require.NoError(t, opened.Close(), c.name)
				require.NoError(t, accepted.Reset(transport.Canceled), c.name)
			}
		}
		requireGoroutines(t, before+cycles/10, c.name+": streams")
	}
}

func connectionLeaks(t *trial) {
	cycle := func() {
		inner := newTrial(t.TB, t.harness)
		for _, failure := range inner.run(func(t *trial) {
			t.eachWay(func(c oneWay) { t.open(c) }) // two connections, a stream left open on each
		}) {
			t.Errorf("%s", failure)
		}
	}
	cycle()
	before := runtime.NumGoroutine()
	cycles := 15
	if testing.Short() {
		cycles = 5
	}
	for range cycles {
		cycle()
	}
	requireGoroutines(t, before+cycles/2, "connections")
}

// requireGoroutines waits until at most n goroutines are left. The slack that n
// includes is for those that the carrier or the runtime keeps by itself.
func requireGoroutines(t *trial, n int, what string) {
	t.Helper()
	deadline := time.NewTimer(t.patience)
	defer deadline.Stop()
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for runtime.NumGoroutine() > n {
		select {
		case <-poll.C:
		case <-deadline.C:
			t.Fatalf("%s leave goroutines behind: %d, expected at most %d\n%s", what, runtime.NumGoroutine(), n, stacks())
		}
	}
}
