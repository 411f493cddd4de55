package pki_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/pki"
)

// children are programs that tests start by running this binary with childVariable
// set to their name.
var children = map[string]func(ctx context.Context) error{
	"agent":   agentChild,
	"gateway": gatewayChild,
}

const childVariable = "OUTGATE_TEST_CHILD"

func TestMain(m *testing.M) {
	child, ok := children[os.Getenv(childVariable)]
	if !ok {
		goleak.VerifyTestMain(m)
		return
	}
	if err := child(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// journal is a log that tests can read.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// newAuthority is an authority with everything in memory, and its log.
func newAuthority(t testing.TB) (*pki.Authority, *journal) {
	t.Helper()
	signer, cert, err := pki.NewCA("test")
	require.NoError(t, err)
	log := new(journal)
	return &pki.Authority{
		Signer:      signer,
		Certificate: cert,
		Store:       new(pki.MemoryStore),
		Logger:      log.logger(),
	}, log
}

func grant(t testing.TB, a *pki.Authority, g pki.Grant) pki.Token {
	t.Helper()
	token, err := a.Grant(t.Context(), g)
	require.NoError(t, err)
	return token
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key
}

func csrOf(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
	require.NoError(t, err)
	return csr
}

// pinOf is the pin of a key without a certificate.
func pinOf(t testing.TB, key crypto.Signer) pki.Pin {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	require.NoError(t, err)
	return sha256.Sum256(der)
}

func leafOf(t testing.TB, c *pki.Credential) *x509.Certificate {
	t.Helper()
	leaf, err := c.Leaf()
	require.NoError(t, err)
	return leaf
}

func requireRefused(t testing.TB, err error) {
	t.Helper()
	require.ErrorIs(t, err, &pki.RegistrationError{})
}

// enroll makes an agent of this name with its identity in memory.
func enroll(t testing.TB, a *pki.Authority, name string) *pki.Identity {
	t.Helper()
	identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), a,
		pki.Registration{Token: grant(t, a, pki.Grant{Agent: name})})
	require.NoError(t, err)
	return identity
}

// serve runs a gateway and returns its base URL: the registration API, and
// /whoami for the tunnel.
func serve(t testing.TB, a *pki.Authority, config pki.HandlerConfig) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle("/outgate/v1/", pki.Handler(a, config))
	mux.HandleFunc("/whoami", func(w http.ResponseWriter, r *http.Request) {
		name, err := pki.AgentName(*r.TLS)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		_, _ = w.Write([]byte(name))
	})
	return serveTLS(t, a, mux)
}

func serveTLS(t testing.TB, a *pki.Authority, h http.Handler) string {
	t.Helper()
	config, err := a.ServerTLS(tls.VerifyClientCertIfGiven, "localhost", "127.0.0.1")
	require.NoError(t, err)
	return serveWith(t, config, h)
}

func serveWith(t testing.TB, config *tls.Config, h http.Handler) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{Handler: h, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		server.Close()
		wg.Wait()
	})
	return "https://" + listener.Addr().String()
}

// clientTLS is for a client without an identity.
func clientTLS(a *pki.Authority) *tls.Config {
	return &tls.Config{RootCAs: a.Pool(), MinVersion: tls.VersionTLS13}
}

// whoami asks the gateway for the name that it sees in the certificate.
func whoami(t testing.TB, base string, config *tls.Config) (string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: config, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/whoami", nil)
	require.NoError(t, err)
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(strings.TrimSpace(string(body)))
	}
	return string(body), err
}

// fault fails the nth operation, before or after it did what was asked.
type fault struct {
	mu    sync.Mutex
	count int
	at    int // 0: never
	after bool
}

var errFault = errors.New("fault")

func (f *fault) around(do func() error) error {
	f.mu.Lock()
	f.count++
	hit := f.count == f.at
	f.mu.Unlock()
	if hit && !f.after {
		return errFault
	}
	if err := do(); err != nil {
		return err
	}
	if hit {
		return errFault
	}
	return nil
}
