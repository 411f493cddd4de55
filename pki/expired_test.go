package pki_test

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// pipes serves the API of an authority, with TLS, on pipes that a bubble of
// synctest can wait for.
func pipes(t *testing.T, a *pki.Authority, api http.Handler) *pki.Client {
	t.Helper()
	config, err := a.ServerTLS(tls.VerifyClientCertIfGiven, "localhost")
	require.NoError(t, err)
	listener := &accepted{conns: make(chan net.Conn), closed: make(chan struct{})}
	server := &http.Server{Handler: api, TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.ServeTLS(listener, "", "") })
	t.Cleanup(func() {
		// A pipe holds nothing: both ends say goodbye and nobody reads.
		time.Sleep(10 * time.Second)
		_ = server.Close()
		wg.Wait()
	})
	return &pki.Client{
		Gateway: "https://localhost", Pins: []pki.Pin{pki.PinOf(a.Certificate)},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			here, there := net.Pipe()
			select {
			case listener.conns <- there:
				return here, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		},
	}
}

// A machine that was off for longer than its certificate lived comes back over
// HTTPS, when both sides allow it.
func TestAnAgentComesBackAfterItsCertificateEnded(t *testing.T) {
	for name, c := range map[string]struct {
		grace, late     time.Duration
		handler, agents bool
		ok              bool
	}{
		"allowed by all":         {7 * day, 6 * day, true, true, true},
		"too late":               {7 * day, 8 * day, true, true, false},
		"not by the authority":   {0, time.Hour, true, true, false},
		"not by the handler":     {7 * day, time.Hour, false, true, false},
		"not asked by the agent": {7 * day, time.Hour, true, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, log := newAuthority(t)
				a.RenewalGrace = c.grace
				client := pipes(t, a, pki.Handler(a, pki.HandlerConfig{RenewExpired: c.handler, Logger: log.logger()}))
				e := &pki.Enroller{Storage: new(pki.MemoryStorage), Registrar: client}
				if c.agents {
					e.RenewalGrace = 30 * day
				}
				first, err := e.Enroll(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
				require.NoError(t, err)
				time.Sleep(time.Until(first.Status().NotAfter) + c.late)

				identity, err := e.Enroll(t.Context(), pki.Registration{})
				if !c.ok {
					require.Error(t, err)
					require.Len(t, certificatesOf(t, a, "edge"), 1)
					return
				}
				require.NoError(t, err)
				require.Equal(t, "edge", identity.Agent())
				require.NoError(t, a.Verify(t.Context(), identity.Certificate().Leaf))
				records := certificatesOf(t, a, "edge")
				require.Len(t, records, 2)
				require.Equal(t, first.Status().Serial, records[1].Previous)
			})
		})
	}
}

// The proof is of the key, for this request, of a certificate that the authority
// has issued and not revoked.
func TestAnExpiredCertificateNeedsItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		a.RenewalGrace = 7 * day
		client := pipes(t, a, pki.Handler(a, pki.HandlerConfig{RenewExpired: true}))
		mine, other, revoked := enroll(t, a, "edge"), enroll(t, a, "core"), enroll(t, a, "gone")
		stranger, _ := newAuthority(t)
		foreign := enroll(t, stranger, "edge")
		_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "gone"})
		require.NoError(t, err)
		time.Sleep(91 * day)

		// renew presents one identity's certificate with another's key.
		renew := func(cert, key *pki.Identity) error {
			config := mine.ClientTLS() // for the roots
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &tls.Certificate{Certificate: cert.Certificate().Certificate, PrivateKey: key.Certificate().PrivateKey}, nil
			}
			_, err := client.Renew(t.Context(), pki.Renewal{Presented: cert.Certificate().Leaf, CSR: csrOf(t, newKey(t)), TLS: config})
			return err
		}
		refused := &pki.RegistrationError{Renewal: true}
		require.ErrorIs(t, renew(mine, other), refused)
		require.ErrorIs(t, renew(other, mine), refused)
		require.ErrorIs(t, renew(revoked, revoked), refused)
		require.ErrorIs(t, renew(foreign, foreign), refused)
		require.NoError(t, renew(mine, mine))
		require.Len(t, certificatesOf(t, a, "edge"), 2)
		require.Len(t, certificatesOf(t, a, "core"), 1)
	})
}

func TestAnExpiredCertificateOfAnyKind(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	large, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "Ed25519": ed, "RSA": large} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				a.RenewalGrace, a.AllowRSA = 7*day, true
				client := pipes(t, a, pki.Handler(a, pki.HandlerConfig{RenewExpired: true}))
				c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)})
				require.NoError(t, err)
				time.Sleep(91 * day)
				config := &tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{{Certificate: c.Certificates, PrivateKey: key}}}
				_, err = client.Renew(t.Context(), pki.Renewal{Presented: leafOf(t, c), CSR: csrOf(t, newKey(t)), TLS: config})
				require.NoError(t, err)
			})
		})
	}
}

// What ended by the clock of the agent alone is good, and needs nobody's grace.
func TestAClockThatIsAheadDoesNotEndACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		client := pipes(t, a, pki.Handler(a, pki.HandlerConfig{}))
		identity := enroll(t, a, "edge")
		ended := *identity.Certificate().Leaf // as far as the client can tell
		ended.NotAfter = time.Now().Add(-time.Hour)
		_, err := client.Renew(t.Context(), pki.Renewal{Presented: &ended, CSR: csrOf(t, newKey(t)), TLS: identity.ClientTLS()})
		require.NoError(t, err)
	})
}

// A signature for one request is none for another.
func TestAProofIsForOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		a.RenewalGrace = 7 * day
		api := pki.Handler(a, pki.HandlerConfig{RenewExpired: true})
		theft := csrOf(t, newKey(t))
		client := pipes(t, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			var request map[string]any
			if err := json.NewDecoder(r.Body).Decode(&request); err == nil {
				request["csr"] = theft
			}
			body, _ := json.Marshal(request)
			changed, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), strings.NewReader(string(body)))
			if err != nil {
				return
			}
			changed.Header, changed.TLS, changed.RemoteAddr = r.Header, r.TLS, r.RemoteAddr
			api.ServeHTTP(w, changed)
		}))
		identity := enroll(t, a, "edge")
		time.Sleep(91 * day)
		_, err := client.Renew(t.Context(), pki.Renewal{Presented: identity.Certificate().Leaf, CSR: csrOf(t, newKey(t)), TLS: identity.ClientTLS()})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
		require.Len(t, certificatesOf(t, a, "edge"), 1)
	})
}
