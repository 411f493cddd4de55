package transporttest

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outgate/outgate/transport"
)

const (
	// bound is how long one test may take while nothing moves. It is far more than
	// any needs, so that only a hang reaches it.
	bound = 45 * time.Second

	// patience is how long one call may take that should end by itself.
	patience = 10 * time.Second
)

// trial runs one test. It keeps the verdict to itself, so that a test may fail
// without failing the run, and gives up on a test that hangs.
type trial struct {
	testing.TB // for what is not about the verdict
	harness    Harness
	ctx        context.Context
	cancel     context.CancelFunc
	bound      time.Duration
	patience   time.Duration
	moved      atomic.Int64 // bytes, in the tests whose length depends on the machine

	mu       sync.Mutex
	large    []byte // see tooMuch
	over     bool   // nobody listens any more
	failures []string
	skipped  string
	cleanups []func()
	muxes    []transport.Mux
}

func newTrial(tb testing.TB, h Harness) *trial {
	t := &trial{TB: tb, harness: h, bound: bound, patience: patience}
	t.ctx, t.cancel = context.WithCancel(tb.Context())
	return t
}

// run runs f to its end or to the bound and returns what failed.
func (t *trial) run(f func(*trial)) []string {
	done := t.spawn(func() { f(t) })
	before, ended := int64(0), finishes(done, t.bound)
	for now := t.moved.Load(); !ended && now > before; now = t.moved.Load() {
		before, ended = now, finishes(done, t.bound)
	}
	if !ended {
		t.Errorf("hangs: no end after %v\n%s", t.bound, stacks())
		t.spawn(t.closeMuxes)
		finishes(done, t.patience) // a chance to let go
	}
	t.finish()
	return t.failures
}

// finish ends the trial: its connections, then what was given to Cleanup.
func (t *trial) finish() {
	t.cancel()
	if !finishes(t.spawn(t.closeMuxes), t.patience) {
		t.Errorf("CloseWithError hangs: no end after %v\n%s", t.patience, stacks())
	}
	for {
		t.mu.Lock()
		n := len(t.cleanups)
		if n == 0 {
			t.over = true
			t.mu.Unlock()
			return
		}
		f := t.cleanups[n-1]
		t.cleanups = t.cleanups[:n-1]
		t.mu.Unlock()
		if !finishes(t.spawn(f), t.patience) {
			t.Errorf("a Cleanup of the Harness hangs: no end after %v\n%s", t.patience, stacks())
		}
	}
}

// spawn runs f in a goroutine that FailNow may end.
func (t *trial) spawn(f func()) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	return done
}

// connect makes a connection that ends with the trial.
func (t *trial) connect() Pair {
	t.Helper()
	p := t.harness.Connect(t)
	if p.Dialed == nil || p.Accepted == nil || p.Cut == nil {
		t.Fatalf("Harness.Connect returned a Pair with a nil field")
	}
	t.mu.Lock()
	t.muxes = append(t.muxes, p.Dialed, p.Accepted)
	t.mu.Unlock()
	return p
}

func (t *trial) closeMuxes() {
	t.mu.Lock()
	muxes := t.muxes
	t.muxes = nil
	t.mu.Unlock()
	var wg sync.WaitGroup
	for _, m := range muxes {
		wg.Go(func() { _ = m.CloseWithError(transport.NoError, "end of test") }) // already closed is fine
	}
	wg.Wait()
}

// finishes reports whether done closes within d.
func finishes(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}

// stacks is what every goroutine does, for the report of a hang.
func stacks() string {
	buf := make([]byte, 64<<10)
	return string(buf[:runtime.Stack(buf, true)])
}

// The rest is testing.TB, turned inwards.

func (t *trial) Context() context.Context { return t.ctx }

func (t *trial) Cleanup(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cleanups = append(t.cleanups, f)
}

func (t *trial) record(text string) {
	if !strings.HasPrefix(text, "\n\tError Trace:") { // testify has said where
		_, file, line, _ := runtime.Caller(2)
		text = fmt.Sprintf("%s:%d: %s", filepath.Base(file), line, text)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.failures = append(t.failures, text)
	}
}

func (t *trial) Error(args ...any)                 { t.record(fmt.Sprintln(args...)) }
func (t *trial) Errorf(format string, args ...any) { t.record(fmt.Sprintf(format, args...)) }
func (t *trial) Fail()                             { t.record("failed") }
func (t *trial) FailNow()                          { t.failOnce(); runtime.Goexit() }
func (t *trial) Fatal(args ...any)                 { t.record(fmt.Sprintln(args...)); runtime.Goexit() }

func (t *trial) Fatalf(format string, args ...any) {
	t.record(fmt.Sprintf(format, args...))
	runtime.Goexit()
}

// failOnce adds a failure when there is none: testify reports through Errorf
// before it calls FailNow.
func (t *trial) failOnce() {
	if !t.Failed() {
		t.record("failed")
	}
}

func (t *trial) Failed() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.failures) > 0
}

func (t *trial) Log(args ...any)                 { t.log(fmt.Sprintln(args...)) }
func (t *trial) Logf(format string, args ...any) { t.log(fmt.Sprintf(format, args...)) }

func (t *trial) log(text string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.TB.Log(text)
	}
}

func (t *trial) Skip(args ...any)                 { t.skip(fmt.Sprint(args...)) }
func (t *trial) Skipf(format string, args ...any) { t.skip(fmt.Sprintf(format, args...)) }
func (t *trial) SkipNow()                         { t.skip("no reason given") }

func (t *trial) skip(reason string) {
	t.mu.Lock()
	t.skipped = reason
	t.mu.Unlock()
	runtime.Goexit()
}

func (t *trial) Skipped() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.skipped != ""
}
