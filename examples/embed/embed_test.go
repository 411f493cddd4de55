package embed

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/process"
)

func TestDaemonIsReachedThroughServer(t *testing.T) {
	daemonProgram, serverProgram := process.Build(t, "daemon"), process.Build(t, "server")
	dir := t.TempDir()
	state := filepath.Join(dir, "server")
	server := process.Start(t, exec.CommandContext(t.Context(), serverProgram, "-listen", "127.0.0.1:0", "-state", state))
	url := "https://" + strings.TrimSpace(server.WaitFor("listening ", 1))
	pin := strings.TrimSpace(server.WaitFor("pin ", 1))
	password := strings.TrimSpace(server.WaitFor("password ", 1))
	client := trusting(t, filepath.Join(state, "ca.crt"))
	ask := func(method, path, password string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, url+path, nil)
		require.NoError(t, err)
		req.SetBasicAuth("operator", password)
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(body)
	}

	status, body := ask(http.MethodGet, "/", "")
	assert.Equal(t, http.StatusOK, status)
	assert.Equal(t, "the product's own page\n", body)
	status, _ = ask(http.MethodPost, "/agents/pump-7/token", "wrong")
	assert.Equal(t, http.StatusUnauthorized, status)
	status, _ = ask(http.MethodGet, "/agents/pump-7/status", password)
	assert.Equal(t, http.StatusServiceUnavailable, status, "not connected yet")

	status, token := ask(http.MethodPost, "/agents/pump-7/token", password)
	require.Equal(t, http.StatusOK, status)
	tokenFile := filepath.Join(dir, "token")
	require.NoError(t, os.WriteFile(tokenFile, []byte(token), 0o600))
	start := func(args ...string) *process.Process {
		args = append(args, "-gateway", url, "-pin", pin, "-state", filepath.Join(dir, "daemon"))
		return process.Start(t, exec.CommandContext(t.Context(), daemonProgram, args...))
	}
	daemon := start("-token", tokenFile)
	server.WaitFor("connected  pump-7", 1)
	status, body = ask(http.MethodGet, "/agents/pump-7/status", password)
	assert.Equal(t, http.StatusOK, status)
	assert.Contains(t, body, "all is well")
	assert.Contains(t, body, "operator", "the daemon knows on whose behalf")
	status, _ = ask(http.MethodGet, "/agents/pump-7/elsewhere", password)
	assert.Equal(t, http.StatusNotFound, status, "the daemon's own answer")

	daemon.Signal(syscall.SIGTERM)
	assert.Equal(t, 0, daemon.Wait())
	daemon = start() // it needs no token any more
	server.WaitFor("connected  pump-7", 2)
	_, body = ask(http.MethodGet, "/agents/pump-7/status", password)
	assert.Contains(t, body, "all is well")

	server.Signal(syscall.SIGTERM)
	assert.Equal(t, 0, server.Wait())
	daemon.Signal(syscall.SIGTERM)
	assert.Equal(t, 0, daemon.Wait())
}

// trusting is a client that trusts the authority in a file.
func trusting(t *testing.T, path string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	block, _ := pem.Decode(text)
	require.NotNil(t, block)
	cert, err := x509.ParseCertificate(block.Bytes)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}
