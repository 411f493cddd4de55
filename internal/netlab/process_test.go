//go:build linux

package netlab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

// process is a node of the lab as the test sees it: this program, run on a host. It can
// be killed and started again; its events go on where they were.
type process struct {
	tb   testing.TB
	host *testnet.Host
	name string
	file string

	stderr lockedBuffer

	mu      sync.Mutex
	cmd     *exec.Cmd
	stdin   io.WriteCloser
	ended   chan struct{} // closed when the program has ended and all its events are here
	events  []event
	dropped int           // events that were there before those
	changed chan struct{} // closed and replaced by every event
}

func newProcess(tb testing.TB, host *testnet.Host, name, file string) *process {
	p := &process{tb: tb, host: host, name: name, file: file, changed: make(chan struct{})}
	tb.Cleanup(func() {
		p.kill()
		if said := p.stderr.String(); said != "" {
			tb.Errorf("%s said:\n%s", name, said)
		}
		if tb.Failed() {
			text, _ := os.ReadFile(strings.TrimSuffix(file, ".json") + ".log")
			tb.Logf("the log of %s ends with:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

// start runs the program and waits until it is ready.
func (p *process) start() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := p.host.Command(context.Background(), self)
	cmd.Env = append(os.Environ(), nodeEnv+"="+p.file, "GOMAXPROCS=2")
	cmd.Stderr = &p.stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	mark := p.mark()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.stdin, p.ended = cmd, stdin, ended
	p.mu.Unlock()
	go func() {
		defer close(ended)
		p.collect(stdout)
		_ = cmd.Wait()
	}()
	_, err = p.await(mark, time.Minute, func(e event) bool { return e.Kind == "ready" })
	return err
}

func (p *process) collect(stdout io.Reader) {
	lines := json.NewDecoder(stdout)
	for {
		var e event
		if lines.Decode(&e) != nil {
			return
		}
		p.mu.Lock()
		p.events = append(p.events, e)
		close(p.changed)
		p.changed = make(chan struct{})
		p.mu.Unlock()
	}
}

// kill ends the program at once and waits for that.
func (p *process) kill() {
	p.mu.Lock()
	cmd, ended, stdin := p.cmd, p.ended, p.stdin
	p.mu.Unlock()
	if cmd == nil {
		return
	}
	_ = cmd.Process.Kill()
	<-ended
	_ = stdin.Close()
}

// signal stops the program or lets it go on.
func (p *process) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd.Process.Signal(s)
}

// tell gives the program a command. One that it does not live to read is lost.
func (p *process) tell(c command) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text, err := json.Marshal(c)
	require.NoError(p.tb, err)
	_, _ = p.stdin.Write(append(text, '\n'))
}

// mark is a position among the events, now.
func (p *process) mark() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped + len(p.events)
}

// since returns the events after a mark.
func (p *process) since(mark int) []event {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events[max(0, mark-p.dropped):])
}

// forget drops the events before a mark, but for the newest, which others may wait for.
func (p *process) forget(mark int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := min(mark-p.dropped, len(p.events)-1000); n > 0 {
		p.events = slices.Clone(p.events[n:])
		p.dropped += n
	}
}

// await returns the first event after a mark that is wanted.
func (p *process) await(mark int, timeout time.Duration, want func(event) bool) (event, error) {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		p.mu.Lock()
		mark = max(mark, p.dropped)
		fresh, changed := p.events[mark-p.dropped:], p.changed
		p.mu.Unlock()
		for _, e := range fresh {
			if want(e) {
				return e, nil
			}
		}
		mark += len(fresh)
		select {
		case <-changed:
		case <-timer.C:
			return event{}, fmt.Errorf("%s did not say what was expected within %s", p.name, timeout)
		}
	}
}

// lockedBuffer keeps what programs print on stderr.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
