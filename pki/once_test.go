package pki_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// Of all agents that redeem a token at the same time one gets an identity, whatever
// the token is stored in and however they come. There are ten thousand of them when
// .ci/run crash runs this.
func TestOneTokenMakesOneIdentity(t *testing.T) {
	rivals := 500
	if exhaustive() {
		rivals = 10_000
	}
	csrs := make([][]byte, rivals)
	for i := range csrs {
		csrs[i] = csrOf(t, newKey(t))
	}
	unlimited := pki.Rate{PerSecond: 1e9, Burst: 1e9}
	stores := map[string]func(t *testing.T) pki.Store{
		"memory": func(*testing.T) pki.Store { return new(pki.MemoryStore) },
		"file":   func(t *testing.T) pki.Store { return openStore(t, filepath.Join(t.TempDir(), "registry")) },
	}
	ways := map[string]func(t *testing.T, a *pki.Authority) func(pki.Registration) error{
		"in process": func(t *testing.T, a *pki.Authority) func(pki.Registration) error {
			return func(r pki.Registration) error {
				_, err := a.Register(t.Context(), r)
				return err
			}
		},
		"over HTTPS": func(t *testing.T, a *pki.Authority) func(pki.Registration) error {
			base := localhost(serve(t, a, pki.HandlerConfig{PerSource: unlimited, Global: unlimited}))
			return overHTTP2(t, a, base)
		},
	}
	for store, open := range stores {
		for way, connect := range ways {
			t.Run(way+" with a "+store+" store", func(t *testing.T) {
				a, _ := newAuthority(t)
				a.Logger = nil
				a.Store = open(t)
				register := connect(t, a)
				token := grant(t, a, pki.Grant{})
				var won atomic.Int32
				var start, done sync.WaitGroup
				start.Add(1)
				for _, csr := range csrs {
					done.Go(func() {
						start.Wait()
						for tries := 1; ; tries++ {
							err := register(pki.Registration{Token: token, CSR: csr})
							switch {
							case err == nil:
								won.Add(1)
							case errors.Is(err, &pki.RegistrationError{}):
							case tries < 100: // so many at once overload the machine; an agent asks again
								time.Sleep(100 * time.Millisecond)
								continue
							default:
								t.Errorf("register: %v", err)
							}
							return
						}
					})
				}
				start.Done()
				done.Wait()
				require.Len(t, certificatesOf(t, a, ""), 1)
				if way == "in process" { // no reply can get lost
					require.EqualValues(t, 1, won.Load())
				}
				require.LessOrEqual(t, won.Load(), int32(1))
			})
		}
	}
}

// overHTTP2 registers over some dozen connections, so that all requests are on
// their way at once.
func overHTTP2(t *testing.T, a *pki.Authority, base string) func(pki.Registration) error {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: clientTLS(a), ForceAttemptHTTP2: true, MaxConnsPerHost: 64}
	t.Cleanup(transport.CloseIdleConnections)
	return func(r pki.Registration) error {
		body, err := json.Marshal(map[string]any{"token": r.Token.Reveal(), "csr": r.CSR})
		if err != nil {
			return err
		}
		req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, base+"/outgate/v1/register", bytes.NewReader(body))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/json")
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		reply, err := io.ReadAll(resp.Body)
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusUnauthorized:
			return &pki.RegistrationError{}
		case resp.StatusCode != http.StatusOK:
			return errors.New(resp.Status + ": " + string(reply))
		}
		return nil
	}
}
