//go:build linux

package websocket_test

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"text/template"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
)

// packages are where Debian and Ubuntu keep the programs that these tests run. The
// tests fail without them: what is not tried against real ones is not known.
var packages = map[string]string{
	"nginx": "nginx-light libnginx-mod-stream", "haproxy": "haproxy", "tinyproxy": "tinyproxy", "microsocks": "microsocks",
}

// daemon is a program that runs until the end of a test.
type daemon struct {
	tb  testing.TB
	cmd *exec.Cmd
}

// start runs a program and waits until it takes connections at an address.
func start(tb testing.TB, ready, name string, args ...string) *daemon {
	tb.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath(filepath.Join("/usr/sbin", name))
	}
	require.NoError(tb, err, "%s is missing; run .ci/install %s, or apt-get install %s", name, name, packages[name])
	var log syncBuffer
	d := &daemon{tb, exec.CommandContext(tb.Context(), path, args...)}
	d.cmd.Stdout, d.cmd.Stderr = &log, &log
	// A program that forks ends with all its processes.
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	d.cmd.Cancel = d.kill
	require.NoError(tb, d.cmd.Start())
	tb.Cleanup(func() {
		_ = d.kill()
		_ = d.cmd.Wait()
		if tb.Failed() {
			tb.Logf("%s said:\n%s", name, log.String())
		}
	})
	require.Eventually(tb, func() bool {
		conn, err := net.Dial("tcp", ready)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}, patience, 10*time.Millisecond, "%s does not listen at %s", name, ready)
	return d
}

// kill ends the program as a power cut does.
func (d *daemon) kill() error { return syscall.Kill(-d.cmd.Process.Pid, syscall.SIGKILL) }

// freeAddress is one that nobody else listens at: programs cannot be given a socket.
// Each test process has an address of its own in the loopback network.
func freeAddress(tb testing.TB) string {
	tb.Helper()
	pid := os.Getpid()
	l, err := net.Listen("tcp", fmt.Sprintf("127.%d.%d.1:0", 64+pid>>8&63, pid&255))
	require.NoError(tb, err)
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// configure writes a configuration from testdata, with values filled in.
func configure(tb testing.TB, name string, values map[string]string) string {
	tb.Helper()
	text, err := template.New(name).Option("missingkey=error").ParseFiles(filepath.Join("testdata", name))
	require.NoError(tb, err)
	var b strings.Builder
	require.NoError(tb, text.ExecuteTemplate(&b, name, values))
	path := filepath.Join(tb.TempDir(), name)
	require.NoError(tb, os.WriteFile(path, []byte(b.String()), 0o600))
	return path
}

// pemFile writes the certificate of a gateway and its key into one file.
func pemFile(tb testing.TB, ca *testca.CA) string {
	tb.Helper()
	cert := ca.Gateway().Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	require.NoError(tb, err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})
	text = append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})...)
	path := filepath.Join(tb.TempDir(), "gateway.pem")
	require.NoError(tb, os.WriteFile(path, text, 0o600))
	return path
}
