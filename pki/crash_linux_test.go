package pki_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// The system calls at which an agent is killed. How often it makes them is found
// out by killing it. strace counts them for each thread, and the first thread to
// reach the number dies, so that a write to the disk can hide behind one to the
// network; epoll_ctl and fcntl come between opening a file and writing it.
var deadly = []string{"mkdirat", "flock", "openat", "write", "fsync", "renameat", "unlinkat", "epoll_ctl", "fcntl", "socket", "connect", "sendto", "close"}

// An agent is killed before each thing that it does to its disk or its network,
// in an enrolment and in a renewal, and started again with the same token and
// what is on disk. Nobody helps it.
func TestAnAgentThatIsKilledAnywhereRecovers(t *testing.T) {
	if !exhaustive() {
		t.Skip("takes minutes: .ci/run crash, or OUTGATE_CRASH=1 go test (needs strace)")
	}
	strace, err := exec.LookPath("strace")
	require.NoError(t, err, "run .ci/install strace")
	a, _ := newAuthority(t)
	unlimited := pki.Rate{PerSecond: 1e6, Burst: 1e6}
	base := localhost(serve(t, a, pki.HandlerConfig{PerSource: unlimited, Global: unlimited}))

	// start returns an agent's command, enrolled if it is to renew.
	start := func(t *testing.T, name string, renews bool) *agentCommand {
		t.Helper()
		dir := t.TempDir()
		token := filepath.Join(dir, "token")
		require.NoError(t, os.WriteFile(token, []byte(grant(t, a, pki.Grant{Agent: name}).Reveal()), 0o600))
		c := &agentCommand{dir: filepath.Join(dir, "agent")}
		c.env = append(os.Environ(), childVariable+"=agent", "GOMAXPROCS=1",
			"CHILD_DIR="+c.dir, "CHILD_GATEWAY="+base, "CHILD_PIN="+pki.PinOf(a.Certificate).String(), "CHILD_TOKEN_FILE="+token)
		if renews {
			require.NoError(t, c.run())
			c.env = append(c.env, "CHILD_RENEWS="+certificatesOf(t, a, name)[0].Serial)
		}
		return c
	}
	hit := make(map[string]bool)
	kills := 0
	for _, what := range []string{"enrol", "renew"} {
		renews := what == "renew"
		for _, call := range deadly {
			for n := 1; ; n++ {
				name := fmt.Sprintf("%s-%s-%d", what, strings.ReplaceAll(call, "_", "-"), n)
				agent := start(t, name, renews)
				killed, at := agent.killAt(t, strace, call, n)
				if killed {
					kills++
					hit[what+" "+at] = true
					require.NoError(t, agent.run(), "%s: killed at %s", name, at)
				}
				require.Equal(t, []string{".lock", "identity"}, agent.files(t), "%s: killed at %s", name, at)
				want := 1
				if renews {
					want = 2
				}
				records := certificatesOf(t, a, name)
				require.Len(t, records, want, "%s: killed at %s", name, at)
				agent.requireIdentity(t, a, name)
				if !killed {
					break // it does no more of these
				}
			}
		}
	}
	points := make([]string, 0, len(hit))
	for point := range hit {
		points = append(points, point)
	}
	slices.Sort(points)
	t.Logf("%d kills, at %d different places:\n%s", kills, len(points), strings.Join(points, "\n"))
	for _, what := range []string{"enrol", "renew"} {
		for _, at := range []string{"openat temporary", "write temporary", "fsync temporary", "fsync directory", "renameat", "unlinkat", "connect socket", "write socket"} {
			require.Contains(t, points, what+" "+at)
		}
	}
}

// agentCommand runs agentChild.
type agentCommand struct {
	dir string
	env []string
}

func (c *agentCommand) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.Env = c.env
	return cmd
}

// run runs it to its end.
func (c *agentCommand) run() error {
	out, err := c.command(os.Args[0]).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// killAt kills it when one of its threads makes the nth call of this name, and
// tells which that was. It lives when none does.
func (c *agentCommand) killAt(t *testing.T, strace, call string, n int) (killed bool, at string) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	cmd := c.command(strace, "-f", "-qqq", "-y", "-e", "signal=none", "-o", log,
		"-e", "trace="+call, "-e", fmt.Sprintf("inject=%s:signal=SIGKILL:when=%d", call, n), os.Args[0])
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return false, "no call"
	case errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL:
	default:
		t.Fatalf("%s %d: neither killed nor well: %v: %s", call, n, err, out)
	}
	text, err := os.ReadFile(log)
	require.NoError(t, err)
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return true, c.place(call, string(lines[len(lines)-1]))
}

var descriptor = regexp.MustCompile(`^\d+ +\w+\(\d+<([^>]*)>`)

// place names what a line of strace is about.
func (c *agentCommand) place(call, line string) string {
	subject := ""
	if m := descriptor.FindStringSubmatch(line); m != nil {
		subject = m[1]
	}
	switch {
	case strings.HasPrefix(subject, "socket:"):
		return call + " socket"
	case strings.Contains(line, "/.tmp-"), call == "openat" && strings.Contains(line, `".tmp-`):
		return call + " temporary"
	case call == "renameat" || call == "unlinkat":
		return call
	case subject == c.dir:
		return call + " directory"
	case strings.HasPrefix(subject, c.dir):
		return call + " " + filepath.Base(subject)
	}
	return call
}

func (c *agentCommand) files(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(c.dir)
	require.NoError(t, err)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// requireIdentity checks that what is on disk is the newest certificate, whole.
func (c *agentCommand) requireIdentity(t *testing.T, a *pki.Authority, name string) {
	t.Helper()
	storage := openStorage(t, c.dir)
	identity, err := pki.Load(t.Context(), storage)
	require.NoError(t, err)
	require.Equal(t, name, identity.Agent())
	require.NoError(t, a.Verify(t.Context(), identity.Certificate().Leaf))
	records := certificatesOf(t, a, name)
	require.Equal(t, records[len(records)-1].Serial, identity.Status().Serial)
	require.NoError(t, storage.Close())
}
