package policy_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// With OUTGATE_CORPUS, the number of targets to generate, a child process holds the corpus
// against a dialer with each of the system's resolvers, in a network of its own in which
// the only name server is one of ours.
func TestNoHostileTargetReachesASocketWithTheSystemsResolvers(t *testing.T) {
	size := os.Getenv("OUTGATE_CORPUS")
	if size == "" {
		t.Log("set OUTGATE_CORPUS to the number of targets to generate; .ci/run corpus does")
		return
	}
	generated, err := strconv.Atoi(size)
	require.NoError(t, err)
	for _, resolver := range []string{"go", "cgo"} {
		t.Run(resolver, func(t *testing.T) {
			require.True(t, resolver == "go" || hasCgo, "this binary has no cgo resolver; build with CGO_ENABLED=1 and a C compiler")
			r := corpusInChild(t, resolver, generated)
			r.check(t, generated)
			require.Greater(t, r.Queries, 100)
		})
	}
}

func corpusInChild(t *testing.T, resolver string, generated int) (r report) {
	t.Helper()
	dir := t.TempDir()
	// The files that name the resolvers' sources, for the child alone.
	for name, text := range map[string]string{
		"resolv.conf":   "nameserver 127.0.0.1\nsearch corp.test\noptions timeout:5 attempts:3\n",
		"nsswitch.conf": "hosts: files dns\n",
		"hosts":         hostsFile,
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	self, err := os.Executable()
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	child := exec.CommandContext(ctx, self)
	child.Env = append(os.Environ(), corpusEnv+"="+dir, "GODEBUG=netdns="+resolver, "OUTGATE_CORPUS="+strconv.Itoa(generated))
	child.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		child.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		child.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		child.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	var stderr strings.Builder
	child.Stderr = &stderr
	out, err := child.Output()
	require.NoError(t, err, "%s", &stderr)
	require.NoError(t, json.Unmarshal(out, &r), "%s", out)
	return r
}

const corpusEnv = "OUTGATE_POLICY_CORPUS_DIR"

// inChild runs instead of the tests in a child, and then exits.
func inChild() {
	dir := os.Getenv(corpusEnv)
	if dir == "" {
		return
	}
	if err := corpusChild(dir); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func corpusChild(dir string) error {
	if err := isolate(dir); err != nil {
		return err
	}
	c, err := newCorpus()
	if err != nil {
		return err
	}
	server, err := serveDNS("127.0.0.1:53", func(name string) []string { return c.zone[name] })
	if err != nil {
		return err
	}
	defer server.close()
	n, err := strconv.Atoi(os.Getenv("OUTGATE_CORPUS"))
	if err != nil {
		return err
	}
	if err := c.try(n); err != nil {
		return err
	}
	c.Queries = server.asked()
	return json.NewEncoder(os.Stdout).Encode(c.report)
}

// isolate brings loopback up and puts the files in place, in namespaces of our own.
func isolate(dir string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, name := range []string{"resolv.conf", "nsswitch.conf", "hosts"} {
		if err := syscall.Mount(filepath.Join(dir, name), "/etc/"+name, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount %s: %w", name, err)
		}
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("bring loopback up: %w", errno)
	}
	return nil
}
