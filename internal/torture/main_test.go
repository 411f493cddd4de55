package torture

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// full says that all rounds run, not a tenth.
var full bool

func TestMain(m *testing.M) {
	if text := os.Getenv(orderVariable); text != "" {
		os.Exit(obey(text))
	}
	full = os.Getenv("OUTGATE_TORTURE") == "1"
	if !full {
		flag.Parse()
		_ = flag.Set("test.parallel", "32")
	}
	goleak.VerifyTestMain(m)
}

// beside lets a test run beside others, most of whose time is waiting. A full run
// measures, and wants quiet.
func beside(t *testing.T) {
	if !full {
		t.Parallel()
	}
}

// scaled is all in a full run and some otherwise. The log tells.
func scaled(tb testing.TB, all, some int, of string) int {
	tb.Helper()
	n := some
	if full {
		n = all
	}
	tb.Logf("%d of %d %s", n, all, of)
	return n
}

// patience bounds every wait for what must happen. It only runs out when something
// is broken.
const patience = time.Minute

// soon is a context that bounds a wait.
func soon(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	tb.Cleanup(cancel)
	return ctx
}

// inParallel calls round with 0 up to n-1, some at a time, and fails the test for
// those that return an error.
func inParallel(tb testing.TB, n, atATime int, round func(i int) error) {
	tb.Helper()
	var (
		next    = make(chan int)
		workers sync.WaitGroup
		mu      sync.Mutex
		failed  []error
	)
	for range min(n, atATime) {
		workers.Go(func() {
			for i := range next {
				if err := round(i); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("round %d: %w", i, err))
					mu.Unlock()
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	if len(failed) > 0 {
		const shown = 10
		tb.Errorf("%d of %d rounds failed:\n%v", len(failed), n, errors.Join(failed[:min(shown, len(failed))]...))
	}
}
