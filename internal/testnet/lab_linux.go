package testnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// commandTimeout bounds one call of ip, nft or tc.
const commandTimeout = 30 * time.Second

// Lab is hosts around one router, each in its own network namespace. A method that fails
// ends the test; it must be called from the test's goroutine. Faults may be switched from
// any, by the methods that return an error.
type Lab struct {
	prefix string
	router string

	mu    sync.Mutex
	hosts int
	names []string
}

// Namespaces returns nil if this process may make network namespaces and has the tools,
// or what is missing.
func Namespaces() error {
	for _, tool := range []string{"ip", "nft", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w; install iproute2 and nftables", err)
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("network namespaces need root")
	}
	name := uniqueName()
	if err := run("ip", "netns", "add", name); err != nil {
		return err
	}
	return run("ip", "netns", "del", name)
}

// namePrefix and the process's ID begin the name of a namespace, so that what a killed
// process leaves behind can be told from what is in use.
const namePrefix = "og-"

func uniqueName() string { return fmt.Sprintf("%s%d-%08x", namePrefix, os.Getpid(), rand.Uint32()) }

// NewLab makes the router. The cleanup of the test kills what still runs in the lab and
// removes all of it.
func NewLab(tb testing.TB) *Lab {
	tb.Helper()
	sweep()
	l := &Lab{prefix: uniqueName()}
	tb.Cleanup(l.remove)
	l.router = l.prefix + "-r"
	l.add(tb, l.router)
	must(tb, run("ip", "netns", "exec", l.router, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
	return l
}

// sweep removes the labs of processes that are gone.
func sweep() {
	out, err := exec.CommandContext(context.Background(), "ip", "netns", "list").Output()
	if err != nil {
		return
	}
	for line := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), " ")
		owner, ours := strings.CutPrefix(name, namePrefix)
		if !ours {
			continue
		}
		owner, _, _ = strings.Cut(owner, "-")
		pid, err := strconv.Atoi(owner)
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			removeNamespace(name)
		}
	}
}

func (l *Lab) add(tb testing.TB, name string) {
	tb.Helper()
	l.mu.Lock()
	l.names = append(l.names, name)
	l.mu.Unlock()
	must(tb, run("ip", "netns", "add", name))
	must(tb, run("ip", "-n", name, "link", "set", "lo", "up"))
}

func (l *Lab) remove() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range l.names {
		removeNamespace(name)
	}
}

// removeNamespace kills the processes in a namespace and removes it.
func removeNamespace(name string) {
	out, err := exec.CommandContext(context.Background(), "ip", "netns", "pids", name).Output()
	if err != nil {
		return
	}
	for pid := range strings.FieldsSeq(string(out)) {
		if n, err := strconv.Atoi(pid); err == nil {
			_ = syscall.Kill(n, syscall.SIGKILL)
		}
	}
	_ = run("ip", "netns", "del", name)
}

// Host is a host in a lab, alone behind its interface of the router.
type Host struct {
	// Addr is where others reach it.
	Addr netip.Addr

	lab     *Lab
	number  int
	name    string // of the namespace
	gateway netip.Addr
	port    string // the router's interface
	moves   int
}

// congestionControl of TCP is the usual one, whatever the machine's default is.
const congestionControl = "cubic"

// hostInterface is what a host's interface is called.
const hostInterface = "eth0"

// Host adds a host.
func (l *Lab) Host(tb testing.TB) *Host {
	tb.Helper()
	l.mu.Lock()
	l.hosts++
	n := l.hosts
	l.mu.Unlock()
	if n > 250 {
		tb.Fatal("testnet: a lab has 250 hosts at most")
	}
	h := &Host{
		Addr:    netip.AddrFrom4([4]byte{10, 231, byte(n), 2}),
		lab:     l,
		number:  n,
		name:    fmt.Sprintf("%s-%d", l.prefix, n),
		gateway: netip.AddrFrom4([4]byte{10, 231, byte(n), 1}),
		port:    fmt.Sprintf("h%d", n),
	}
	l.add(tb, h.name)
	must(tb, run("ip", "link", "add", hostInterface, "netns", h.name, "type", "veth", "peer", "name", h.port, "netns", l.router))
	// One packet at a time, as on a real cable: what the router drops is not 64 KiB.
	must(tb, run("ip", "-n", h.name, "link", "set", hostInterface, "gso_max_segs", "1"))
	must(tb, run("ip", "-n", l.router, "addr", "add", h.gateway.String()+"/24", "dev", h.port))
	must(tb, run("ip", "-n", l.router, "link", "set", h.port, "up"))
	must(tb, run("ip", "-n", h.name, "addr", "add", h.Addr.String()+"/24", "dev", hostInterface))
	must(tb, run("ip", "-n", h.name, "link", "set", hostInterface, "up"))
	must(tb, h.route())
	return h
}

func (h *Host) route() error {
	return run("ip", "-n", h.name, "route", "replace", "default", "via", h.gateway.String(), "congctl", congestionControl)
}

// Namespace is the name of the host's network namespace, for ip netns.
func (h *Host) Namespace() string { return h.name }

// Command is a command that will run on the host.
func (h *Host) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.name, name}, args...)...)
}

// Sysctl sets a parameter of the host's kernel, such as "net.ipv4.tcp_retries2=5".
func (h *Host) Sysctl(setting string) error {
	return run("ip", "netns", "exec", h.name, "sysctl", "-qw", setting)
}

// must ends the test that could not build its network.
func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatalf("testnet: %v", err)
	}
}

func run(name string, args ...string) error { return runInput("", name, args...) }

func runInput(input, name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin = strings.NewReader(input)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
