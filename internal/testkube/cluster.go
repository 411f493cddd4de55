package testkube

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

const (
	startTimeout = 2 * time.Minute // of a busy machine; four seconds are usual
	callTimeout  = 30 * time.Second

	adminToken = "admin-of-the-test-cluster"
)

// Cluster is an API server that lives as long as its test.
type Cluster struct {
	URL    string // https://127.0.0.1:port
	CAFile string // PEM, what its certificate chains to

	client *http.Client
}

// Start starts a cluster. The test is skipped when OUTGATE_KUBE is not set, and
// fails when it is and there is no API server in it.
func Start(t *testing.T) *Cluster {
	t.Helper()
	bin := os.Getenv("OUTGATE_KUBE")
	if bin == "" {
		t.Skip("testkube: needs a kube-apiserver; run .ci/test, or OUTGATE_KUBE=$(.ci/kube) go test")
	}
	dir := t.TempDir()
	if err := writeInputs(dir); err != nil {
		t.Fatalf("testkube: %v", err)
	}
	ports, err := freePorts(3)
	if err != nil {
		t.Fatalf("testkube: %v", err)
	}
	etcd, peers, port := "http://127.0.0.1:"+ports[0], "http://127.0.0.1:"+ports[1], ports[2]
	launch(t, dir, filepath.Join(bin, "etcd"),
		"--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd, "--listen-peer-urls="+peers)
	launch(t, dir, filepath.Join(bin, "kube-apiserver"),
		"--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+port, "--cert-dir="+dir,
		"--token-auth-file="+filepath.Join(dir, "tokens.csv"), "--authorization-mode=RBAC",
		"--service-cluster-ip-range=10.0.0.0/24", "--endpoint-reconciler-type=none",
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+filepath.Join(dir, "sa.key"),
		"--service-account-signing-key-file="+filepath.Join(dir, "sa.key"),
		"--disable-admission-plugins=ServiceAccount") // no controller makes the default ones
	c := &Cluster{URL: "https://127.0.0.1:" + port, CAFile: filepath.Join(dir, "apiserver.crt")}
	if err := c.waitReady(t.Context()); err != nil {
		for _, name := range []string{"etcd.log", "kube-apiserver.log"} {
			text, _ := os.ReadFile(filepath.Join(dir, name))
			t.Logf("%s: %s", name, text[max(0, len(text)-2000):])
		}
		t.Fatalf("testkube: API server is not ready: %v", err)
	}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

// Do sends a request as a cluster administrator and decodes the answer into out,
// unless that is nil. It fails the test when the answer is no success.
func (c *Cluster) Do(t *testing.T, method, path string, in, out any) {
	t.Helper()
	if err := c.do(t.Context(), method, path, in, out); err != nil {
		t.Fatalf("testkube: %v", err)
	}
}

// Token issues a token of a service account, as the kubelet projects it into a
// pod. Kubernetes issues none for less than ten minutes.
func (c *Cluster) Token(t *testing.T, namespace, account string, ttl time.Duration) string {
	t.Helper()
	var reply struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	request := map[string]any{"spec": map[string]any{"expirationSeconds": int(ttl.Seconds())}}
	c.Do(t, http.MethodPost, "/api/v1/namespaces/"+namespace+"/serviceaccounts/"+account+"/token", request, &reply)
	return reply.Status.Token
}

func (c *Cluster) do(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+adminToken)
	req.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("%s %s: HTTP %d: %s", method, path, resp.StatusCode, text)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

// waitReady waits for the server to write its certificate, and then to be ready.
func (c *Cluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	ticker := time.NewTicker(100 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := c.connect()
		if err == nil {
			err = c.do(ctx, http.MethodGet, "/readyz", nil, nil)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return err
		}
	}
}

func (c *Cluster) connect() error {
	if c.client != nil {
		return nil
	}
	text, err := os.ReadFile(c.CAFile)
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return errors.New("certificate is not written yet")
	}
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}}}
	return nil
}

func writeInputs(dir string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "sa.key"), text, 0o600),
		os.WriteFile(filepath.Join(dir, "tokens.csv"), []byte(adminToken+`,admin,1,"system:masters"`+"\n"), 0o600))
}

// launch starts a program that ends with the test.
func launch(t *testing.T, dir, program string, args ...string) {
	t.Helper()
	log, err := os.Create(filepath.Join(dir, filepath.Base(program)+".log"))
	if err != nil {
		t.Fatalf("testkube: %v", err)
	}
	ctx, kill := context.WithCancel(context.WithoutCancel(t.Context()))
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = attr()
	if err := cmd.Start(); err != nil {
		kill()
		t.Fatalf("testkube: %v; run .ci/kube", err)
	}
	t.Cleanup(func() {
		kill()
		_ = cmd.Wait() // it was killed
		log.Close()
	})
}

// freePorts finds ports below the range that the system hands out to clients.
func freePorts(n int) ([]string, error) {
	var found []string
	for port := 20000 + os.Getpid()%10000; port < 32768 && len(found) < n; port++ {
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		listener.Close()
		found = append(found, strconv.Itoa(port))
	}
	if len(found) < n {
		return nil, errors.New("no free ports between 20000 and 32767")
	}
	return found, nil
}
