//go:build unix

package pgtest

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	startTimeout = time.Minute
	stopTimeout  = 20 * time.Second
	portAttempts = 10

	// ports are taken from a range of our own: one that the system hands out to
	// clients could be gone before the server binds it.
	firstPort, lastPort = 20000, 32767
)

// newestBin is the folder with the programs of the newest version installed.
func newestBin() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path))))
		return n
	}
	if len(found) == 0 {
		return "", errors.New("pgtest: no PostgreSQL in /usr/lib/postgresql; run: apt-get install -y postgresql")
	}
	newest := slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })
	return filepath.Dir(newest), nil
}

// cluster is one data directory and the server that runs on it.
type cluster struct {
	bin   string
	dir   string
	owner *syscall.Credential // nil: this process's user
}

func (c *cluster) data() string { return filepath.Join(c.dir, "data") }

// init makes the data directory.
func (c *cluster) init(ctx context.Context, user, password string) error {
	pwfile := filepath.Join(c.dir, "password")
	if err := os.WriteFile(pwfile, []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	if err := c.chown(); err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"),
		"--pgdata", c.data(), "--username", user, "--pwfile", pwfile,
		"--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync")
	cmd.Dir = c.dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	hba := "local all all scram-sha-256\nhostssl all all samehost scram-sha-256\n"
	return os.WriteFile(filepath.Join(c.data(), "pg_hba.conf"), []byte(hba), 0o600)
}

// chown gives all that is in dir so far to the server's user.
func (c *cluster) chown() error {
	if c.owner == nil {
		return nil
	}
	return filepath.WalkDir(c.dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, int(c.owner.Uid), int(c.owner.Gid))
	})
}

// start runs the server on a free port and returns what stops it.
func (c *cluster) start(ctx context.Context, port *uint16) (stop func() error, err error) {
	for range portAttempts {
		*port = uint16(firstPort + rand.IntN(lastPort-firstPort+1))
		// A look before saves the second that a failed start takes; whoever comes
		// between the look and the start costs another attempt.
		if !free(*port) {
			continue
		}
		stop, err = c.startAt(ctx, *port)
		if err == nil || !strings.Contains(err.Error(), "Address already in use") {
			return stop, err
		}
	}
	return nil, fmt.Errorf("no free port after %d attempts; the last one: %w", portAttempts, err)
}

func free(port uint16) bool {
	ln, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return false
	}
	return ln.Close() == nil
}

func (c *cluster) startAt(ctx context.Context, port uint16) (stop func() error, err error) {
	cmd := exec.Command(filepath.Join(c.bin, "postgres"),
		"-D", c.data(), "-h", "127.0.0.1", "-p", strconv.Itoa(int(port)), "-k", c.dir,
		"-c", "ssl=on",
		"-c", "ssl_cert_file="+filepath.Join(c.dir, "server.crt"),
		"-c", "ssl_key_file="+filepath.Join(c.dir, "server.key"),
		"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "max_connections=200")
	cmd.Dir = c.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C") // the log is read below
	cmd.SysProcAttr = serverAttr(c.owner)
	log, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	exited, err := run(cmd)
	if err != nil {
		return nil, err
	}
	ready := make(chan []byte, 1)
	read := make(chan struct{})
	go func() {
		defer close(read)
		watch(log, ready)
	}()
	wait := func() error { // Wait closes the pipe, so read it first
		<-read
		return <-exited
	}

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case complaint := <-ready:
		if complaint != nil {
			return nil, fmt.Errorf("postgres: %w\n%s", errors.Join(wait(), errors.New("it ended early")), complaint)
		}
	case <-ctx.Done():
		_ = cmd.Process.Signal(syscall.SIGQUIT)
		return nil, fmt.Errorf("postgres: not ready: %w", errors.Join(context.Cause(ctx), wait()))
	}
	return func() error {
		// Fast shutdown: clients are cut off.
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			return err
		}
		kill := time.AfterFunc(stopTimeout, func() { _ = cmd.Process.Kill() })
		defer kill.Stop()
		return wait()
	}, nil
}

// run starts cmd and sends what its Wait returns. The thread that starts it
// stays until it ends, since the death of that thread is what the server takes
// for the death of this process; see serverAttr.
func run(cmd *exec.Cmd) (exited <-chan error, err error) {
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_, err = cmd.Process.Wait()
			ended <- err
		}
	}()
	return ended, <-started
}

// watch reads the server's log to its end. It sends nil when the server is
// ready, or the log when it ends before.
func watch(log io.ReadCloser, ready chan<- []byte) {
	defer log.Close()
	var head bytes.Buffer
	lines := bufio.NewReader(log)
	for {
		line, err := lines.ReadBytes('\n')
		head.Write(line)
		if err != nil {
			ready <- head.Bytes()
			return
		}
		if bytes.HasSuffix(line, []byte("database system is ready to accept connections\n")) {
			break
		}
	}
	ready <- nil
	_, _ = io.Copy(io.Discard, lines) // a full pipe would stop the server
}
