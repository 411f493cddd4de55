package transporttest

import (
	"strings"
	"testing"
)

// promise is one thing that every transport keeps, with the tests that prove it.
type promise struct {
	name  string // the field of Skip
	text  string // said when it broke
	skip  string // the harness's reason to skip it
	tests []test
}

type test struct {
	name string
	run  func(*trial)
}

// promises lists the whole suite.
func promises(h Harness) []promise {
	s := h.Skip
	return []promise{
		{"Identity", "the peer's verified certificate is in ConnectionState", s.Identity, identityTests()},
		{"Addresses", "addresses are never nil", s.Addresses, addressTests()},
		{"HalfClose", "CloseWrite ends one direction, after all its data", s.HalfClose, halfCloseTests()},
		{"Close", "Close delivers what was written and tells the peer's writer", s.Close, closeTests()},
		{"Reset", "Reset arrives with its code, on the right side", s.Reset, resetTests()},
		{"Deadlines", "deadlines unblock, can be moved and cleared", s.Deadlines, deadlineTests()},
		{"Writes", "any size of Write arrives unchanged", s.Writes, writeTests()},
		{"Backpressure", "a stalled reader stops the writer and loses nothing", s.Backpressure, backpressureTests()},
		{"Stall", "stalled streams delay nobody else", s.Stall, stallTests()},
		{"Context", "OpenStream and AcceptStream honour ctx", s.Context, contextTests()},
		{"CloseCause", "the cause of the end is the same on both sides", s.CloseCause, closeCauseTests()},
		{"CloseEndsAll", "the end of the connection ends every pending call", s.CloseEndsAll, closeEndsAllTests()},
		{"Cut", "a cut carrier is never a clean end", s.Cut, cutTests()},
		{"Scale", "many streams and much data arrive unchanged", s.Scale, scaleTests()},
		{"Concurrency", "all methods at once neither race nor deadlock", s.Concurrency, concurrencyTests()},
		{"GC", "a garbage collection harms no stream in use", s.GC, gcTests()},
		{"Leaks", "what was closed leaves no goroutine", s.Leaks, leakTests()},
		{"MaxStreams", "the limit on streams holds, and its slots come back", s.MaxStreams, maxStreamsTests(h)},
	}
}

// Run runs the suite: one subtest for each promise, one below it for each test.
// It takes some seconds; -short makes it smaller. Tests run one after the other,
// because some of them count goroutines or look at delays.
func Run(t *testing.T, h Harness) {
	t.Helper()
	if h.Connect == nil {
		t.Fatal("transporttest: Harness.Connect is nil")
	}
	t.Run("NetConn", func(t *testing.T) { testNetConn(t, h) })
	for _, p := range promises(h) {
		t.Run(p.name, func(t *testing.T) {
			switch {
			case p.skip == "" && len(p.tests) == 0:
				t.Skip("the harness does not say what to expect; see the fields of Harness")
			case p.skip == "":
				p.prove(t, h)
			case !p.breaks(t, h):
				t.Errorf("Skip.%s skips nothing: every test of it passes; remove the skip, whose reason was: %s", p.name, p.skip)
			}
		})
	}
}

// prove runs the tests and fails those that fail.
func (p promise) prove(t *testing.T, h Harness) {
	for _, x := range p.tests {
		t.Run(x.name, func(t *testing.T) {
			trial := newTrial(t, h)
			if failures := trial.run(x.run); len(failures) > 0 {
				t.Errorf("promise broken: %s\n%s", p.text, strings.Join(failures, "\n"))
			} else if trial.skipped != "" {
				t.Skip(trial.skipped)
			}
		})
	}
}

// breaks runs the tests of a skipped promise, skips those that fail, and reports
// whether any did. It is also true when -run left some out, so that nothing
// follows from the others.
func (p promise) breaks(t *testing.T, h Harness) bool {
	passed := 0
	for _, x := range p.tests {
		t.Run(x.name, func(t *testing.T) {
			if failures := newTrial(t, h).run(x.run); len(failures) > 0 {
				t.Skipf("not kept: %s: %s\nbecause: %s", p.text, p.skip, strings.Join(failures, "\n"))
			}
			passed++
		})
	}
	return passed < len(p.tests)
}
