// Package process runs the examples as a user does, for tests: it builds them,
// starts them, waits for what they print and ends them.
package process

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// timeout bounds every wait. It only runs out when something is broken.
const timeout = time.Minute

// Build builds the main package in dir, which may be relative to the test, and
// returns the path of the program. Under the race detector the program has it,
// too: a race ends it with a code other than 0.
func Build(tb testing.TB, dir string) string {
	tb.Helper()
	dir, err := filepath.Abs(dir)
	if err != nil {
		tb.Fatal(err)
	}
	program := filepath.Join(tb.TempDir(), filepath.Base(dir))
	args := []string{"build", "-o", program}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.CommandContext(tb.Context(), "go", append(args, ".")...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("build %s: %v\n%s", dir, err, out)
	}
	return program
}

// Process is a program that runs. Its methods belong to one goroutine.
type Process struct {
	tb     testing.TB
	cmd    *exec.Cmd
	output output
	ended  chan struct{} // closed when the process has ended; err is set before
	err    error
}

// Start starts cmd. What it prints to both outputs is kept and shown when the
// test fails. The test's cleanup kills it if it still runs.
func Start(tb testing.TB, cmd *exec.Cmd) *Process {
	tb.Helper()
	p := &Process{tb: tb, cmd: cmd, ended: make(chan struct{})}
	p.output.changed = make(chan struct{})
	cmd.Stdout, cmd.Stderr = &p.output, &p.output
	cmd.WaitDelay = 10 * time.Second // for whoever inherited the outputs
	if err := cmd.Start(); err != nil {
		tb.Fatalf("start %s: %v", cmd.Path, err)
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	tb.Cleanup(func() {
		_ = cmd.Process.Kill() // fails when it has ended, which is as good
		<-p.ended
		if tb.Failed() {
			tb.Logf("%s said:\n%s", strings.Join(cmd.Args, " "), p.Output())
		}
	})
	return p
}

// Output is what the process has printed so far.
func (p *Process) Output() string {
	text, _ := p.output.snapshot()
	return text
}

// WaitFor waits until the process has printed text n times and returns the rest
// of the line after the last of these. The test fails when the process ends
// before.
func (p *Process) WaitFor(text string, n int) string {
	p.tb.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for over := false; ; {
		printed, changed := p.output.snapshot()
		if parts := strings.SplitN(printed, text, n+1); len(parts) == n+1 {
			if rest, _, whole := strings.Cut(parts[n], "\n"); whole {
				return rest
			}
		}
		if over {
			p.tb.Fatalf("%s ended without printing %q %d times", p.cmd.Path, text, n)
		}
		select {
		case <-changed:
		case <-p.ended:
			over = true // it may have printed since
		case <-timer.C:
			p.tb.Fatalf("%s did not print %q %d times within %s", p.cmd.Path, text, n, timeout)
		}
	}
}

// Signal sends a signal.
func (p *Process) Signal(s os.Signal) {
	p.tb.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.tb.Fatalf("signal %s: %v", p.cmd.Path, err)
	}
}

// Wait waits for the end of the process and returns its exit code.
func (p *Process) Wait() int {
	p.tb.Helper()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-p.ended:
	case <-timer.C:
		p.tb.Fatalf("%s did not end within %s", p.cmd.Path, timeout)
	}
	var exit *exec.ExitError
	if p.err != nil && !errors.As(p.err, &exit) {
		p.tb.Fatalf("%s: %v", p.cmd.Path, p.err)
	}
	return p.cmd.ProcessState.ExitCode()
}

// output collects what is written to it and tells when there is more.
type output struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced by each write
}

var _ io.Writer = (*output)(nil)

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text.Write(b)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

func (o *output) snapshot() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}
