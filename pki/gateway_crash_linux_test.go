package pki_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// The system calls at which a gateway is killed, when it starts and later; see
// deadly.
var (
	deadlyToStarts   = []string{"mkdirat", "flock", "openat", "write", "fsync", "renameat", "close", "fcntl", "socket", "bind", "listen"}
	deadlyToGateways = []string{"openat", "write", "pwrite64", "fsync", "renameat", "accept4", "read"}
)

// A gateway is killed before each thing that it does to its disk or its network,
// while it starts, and while an agent enrols, renews and is revoked; then it is
// started again. The agent asks again with what it has. What was acknowledged
// holds, and nothing was done twice.
func TestAGatewayThatIsKilledAnywhereRecovers(t *testing.T) {
	if !exhaustive() {
		t.Skip("takes minutes: .ci/run crash, or OUTGATE_CRASH=1 go test (needs strace)")
	}
	_, err := exec.LookPath("strace")
	require.NoError(t, err, "run .ci/install strace")
	kills := make(map[string]int)
	total := 0
	for _, phase := range []string{"start", "grant", "enrol", "renew", "revoke", "compaction"} {
		calls := deadlyToGateways
		if phase == "start" {
			calls = deadlyToStarts
		}
		for _, call := range calls {
			for n := 1; ; n++ {
				g := &gatewayLife{
					t: t, name: fmt.Sprintf("%s %d during %s", call, n, phase), dir: t.TempDir(), phase: phase,
					inject: []string{"-f", "-qqq", "-e", "signal=none", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n)},
				}
				g.live()
				if !g.killed {
					break // it does no more of these
				}
				kills[call+" during "+phase]++
				total++
			}
		}
	}
	places := slices.Sorted(maps.Keys(kills))
	t.Logf("%d kills, in %d different situations:\n%s", total, len(places), strings.Join(places, "\n"))
	for _, place := range []string{
		"mkdirat during start", "flock during start", "openat during start", "write during start", "fsync during start", "renameat during start",
		"pwrite64 during grant", "fsync during grant", "write during grant",
		"accept4 during enrol", "pwrite64 during enrol", "fsync during enrol", "write during enrol",
		"accept4 during renew", "pwrite64 during renew", "fsync during renew", "write during renew",
		"pwrite64 during revoke", "fsync during revoke", "write during revoke",
		"write during compaction", "fsync during compaction", "renameat during compaction",
	} {
		require.Contains(t, places, place)
	}
}

// gatewayLife is a gateway that may die once, and an agent that wants something of
// it.
type gatewayLife struct {
	t      *testing.T
	name   string
	dir    string
	phase  string   // in which it dies
	inject []string // arguments of strace that kill it

	cmd    *exec.Cmd
	tracer atomic.Pointer[tracer]
	in     io.WriteCloser
	lines  chan string // closed when the process has ended
	ended  chan error

	killed bool
	url    string
	pin    string
}

// start starts it, under the eyes of strace if that is the phase to die in.
func (g *gatewayLife) start(phase string) {
	g.cmd = exec.Command(os.Args[0])
	g.cmd.Env = append(os.Environ(), childVariable+"=gateway", "GOMAXPROCS=1", "CHILD_DIR="+g.dir)
	g.cmd.Stderr = os.Stderr
	var err error
	g.in, err = g.cmd.StdinPipe()
	require.NoError(g.t, err)
	out, err := g.cmd.StdoutPipe()
	require.NoError(g.t, err)
	require.NoError(g.t, g.cmd.Start())
	g.lines, g.ended = make(chan string), make(chan error, 1)
	go func(lines chan<- string, ended chan<- error, cmd *exec.Cmd) {
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			lines <- scanner.Text()
		}
		g.tracer.Load().end() // it does not always notice that all threads are dead, and keeps us from it
		ended <- cmd.Wait()
		close(lines)
	}(g.lines, g.ended, g.cmd)
	if phase == g.phase {
		g.trace()
	}
	_, _ = io.WriteString(g.in, "go\n") // fails when it is dead already
}

// stop ends it in good order.
func (g *gatewayLife) stop() {
	_, _ = io.WriteString(g.in, "stop\n")
	for line := range g.lines {
		g.t.Errorf("%s: it says %q at its end", g.name, line)
	}
	if err := <-g.ended; err != nil { // killed by the last thing it did
		g.ended <- err
		g.restart()
		g.stop()
	}
}

// during does something, in whose course it may be killed.
func (g *gatewayLife) during(phase string, do func()) {
	if phase == g.phase {
		g.trace()
	}
	do()
	g.tracer.Load().end()
}

// trace lets strace at all threads of the running gateway.
func (g *gatewayLife) trace() {
	pid := strconv.Itoa(g.cmd.Process.Pid)
	cmd := exec.Command("strace", slices.Concat(g.inject, []string{"-o", filepath.Join(g.dir, "strace"), "-p", pid})...)
	require.NoError(g.t, cmd.Start())
	tr := &tracer{cmd: cmd, ended: make(chan struct{})}
	go func() { _ = cmd.Wait(); close(tr.ended) }()
	g.tracer.Store(tr)
	require.Eventually(g.t, func() bool {
		threads, err := filepath.Glob("/proc/" + pid + "/task/*/status")
		for _, status := range threads {
			text, _ := os.ReadFile(status)
			if strings.Contains(string(text), "TracerPid:\t0\n") && !strings.Contains(string(text), "State:\tZ") {
				return false
			}
		}
		return err == nil // if there are none it has been killed by what it did just then
	}, 20*time.Second, time.Millisecond)
}

// tracer is a strace.
type tracer struct {
	cmd   *exec.Cmd
	ended chan struct{}
}

// end lets strace go.
func (tr *tracer) end() {
	if tr == nil {
		return
	}
	_ = tr.cmd.Process.Signal(os.Interrupt)
	select {
	case <-tr.ended:
	case <-time.After(5 * time.Second):
		_ = tr.cmd.Process.Kill()
		<-tr.ended
	}
}

// restart starts it again after it was killed.
func (g *gatewayLife) restart() {
	err := <-g.ended
	var exit *exec.ExitError
	require.True(g.t, errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL, "%s: %v", g.name, err)
	require.False(g.t, g.killed, "%s: it dies once", g.name)
	g.killed = true
	g.start("")
	g.hello()
}

// line waits for what it says, and restarts it when it says no more.
func (g *gatewayLife) line() (line string, ok bool) {
	select {
	case line, ok = <-g.lines:
	case <-time.After(time.Minute):
		g.t.Fatalf("%s: hangs", g.name)
	}
	if !ok {
		g.restart()
	}
	return line, ok
}

// hello reads what a gateway says when it has started.
func (g *gatewayLife) hello() {
	line, ok := g.line()
	if !ok {
		return // started again, and said hello then
	}
	url, pin, _ := strings.Cut(line, " ")
	if g.pin != "" {
		require.Equal(g.t, g.pin, pin, "%s: another authority", g.name)
	}
	g.url, g.pin = url, pin
}

// tell gives an order until it is carried out, and returns the answer.
func (g *gatewayLife) tell(order string) string {
	for {
		_, _ = io.WriteString(g.in, order+"\n") // fails when it is dead, which line finds out
		if answer, ok := g.line(); ok {
			return answer
		}
	}
}

// ask asks by HTTPS, as the agent, until there is an answer.
func (g *gatewayLife) ask(f func(*pki.Client) (*pki.Credential, error)) *pki.Credential {
	pin, err := pki.ParsePin(g.pin)
	require.NoError(g.t, err)
	for tries := 0; ; tries++ {
		c, err := f(&pki.Client{Gateway: g.url, Pins: []pki.Pin{pin}, Timeout: 20 * time.Second})
		if err == nil {
			return c
		}
		require.True(g.t, pki.Temporary(err), "%s: %v", g.name, err)
		require.Less(g.t, tries, 100, "%s: %v", g.name, err)
		select {
		case _, ok := <-g.lines:
			require.False(g.t, ok)
			g.restart()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// live goes through the life of an agent and looks at what is left of it.
func (g *gatewayLife) live() {
	t := g.t
	g.start("start")
	g.hello()
	g.tracer.Load().end()
	var token pki.Token
	g.during("grant", func() {
		var err error
		token, err = pki.ParseToken(g.tell("grant"))
		require.NoError(t, err)
	})
	var identity *pki.Identity
	g.during("enrol", func() {
		var err error
		registrar := registrarFunc(func(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
			return g.ask(func(c *pki.Client) (*pki.Credential, error) { return c.Register(ctx, r) }), nil
		})
		identity, err = pki.Enroll(t.Context(), new(pki.MemoryStorage), registrar, pki.Registration{Token: token})
		require.NoError(t, err)
	})
	var renewed *pki.Credential
	g.during("renew", func() {
		r := pki.Renewal{Presented: identity.Certificate().Leaf, CSR: csrOf(t, newKey(t)), TLS: identity.ClientTLS()}
		renewed = g.ask(func(c *pki.Client) (*pki.Credential, error) { return c.Renew(t.Context(), r) })
	})
	g.during("revoke", func() { require.Equal(t, "revoked", g.tell("revoke")) })

	require.Equal(t, "labelled", g.tell("label"))
	g.stop()
	g.start("compaction") // most of what it has written is outdated
	g.hello()
	g.tracer.Load().end()
	g.stop()

	store := openStore(t, filepath.Join(g.dir, "registry"))
	defer store.Close()
	require.NoError(t, store.View(t.Context(), func(tx pki.Tx) error {
		certificates, err := tx.Certificates("")
		require.NoError(t, err)
		require.Len(t, certificates, 2, "%s: one enrolled, one renewed", g.name)
		require.Equal(t, identity.Status().Serial, certificates[0].Serial)
		require.Equal(t, renewed.Serial, certificates[1].Serial)
		for _, c := range certificates {
			require.False(t, c.Revoked.IsZero(), "%s: what was acknowledged is lost", g.name)
		}
		revocations, err := tx.Revocations(0)
		require.NoError(t, err)
		require.Len(t, revocations, 2, "%s: each once", g.name)
		return nil
	}))
	left, err := filepath.Glob(filepath.Join(g.dir, ".tmp-*"))
	require.NoError(t, err)
	require.Empty(t, left, "%s: nothing half written stays", g.name)
}
