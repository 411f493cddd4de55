package pki_test

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestSameTokenAndKeyGetTheSameCertificate(t *testing.T) {
	a, _ := newAuthority(t)
	token, key := grant(t, a, pki.Grant{}), newKey(t) // unbound, so that the name is made once as well
	var mu sync.Mutex
	seen := make(map[string]int)
	var wg sync.WaitGroup
	for range 100 {
		csr := csrOf(t, key)
		wg.Go(func() {
			c, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csr})
			if err != nil {
				t.Errorf("Register: %v", err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[c.Agent+" "+string(c.Certificates[0])]++
		})
	}
	wg.Wait()
	require.Len(t, seen, 1)
	require.Len(t, certificatesOf(t, a, ""), 1)
}

func TestAnotherKeyBurnsTheToken(t *testing.T) {
	a, log := newAuthority(t)
	token := grant(t, a, pki.Grant{Agent: "edge"})
	first := pki.Registration{Token: token, CSR: csrOf(t, newKey(t))}
	_, err := a.Register(t.Context(), first)
	require.NoError(t, err)
	_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	requireRefused(t, err)
	require.Contains(t, log.String(), "already used with another key")
	_, err = a.Register(t.Context(), first)
	requireRefused(t, err)
}

func TestAWrongNameBurnsTheToken(t *testing.T) {
	a, log := newAuthority(t)
	token, csr := grant(t, a, pki.Grant{Agent: "edge"}), csrOf(t, newKey(t))
	_, err := a.Register(t.Context(), pki.Registration{Token: token, Agent: "core", CSR: csr})
	requireRefused(t, err)
	require.Contains(t, log.String(), "wrong name")
	_, err = a.Register(t.Context(), pki.Registration{Token: token, Agent: "edge", CSR: csr})
	requireRefused(t, err)
	require.Contains(t, log.String(), "token burned")
	require.Empty(t, certificatesOf(t, a, ""))
}

func TestFiveWrongSecretsLockTheToken(t *testing.T) {
	a, log := newAuthority(t)
	csr := csrOf(t, newKey(t))
	for _, tries := range []int{4, 5} {
		token := grant(t, a, pki.Grant{Agent: "edge"})
		wrong, err := pki.ParseToken(token.ID() + "." + goodSecret)
		require.NoError(t, err)
		for range tries {
			_, err := a.Register(t.Context(), pki.Registration{Token: wrong, CSR: csr})
			requireRefused(t, err)
		}
		_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csr})
		if tries < 5 {
			require.NoError(t, err)
		} else {
			requireRefused(t, err)
		}
	}
	require.Contains(t, log.String(), "locked after wrong secrets")
}

func TestATokenExpires(t *testing.T) {
	for name, c := range map[string]struct{ ttl, life time.Duration }{
		"after fifteen minutes": {0, 15 * time.Minute},
		"after its TTL":         {24 * time.Hour, 24 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, log := newAuthority(t)
				spent, unspent := grant(t, a, pki.Grant{TTL: c.ttl}), grant(t, a, pki.Grant{TTL: c.ttl})
				csr := csrOf(t, newKey(t))

				time.Sleep(c.life - time.Nanosecond)
				_, err := a.Register(t.Context(), pki.Registration{Token: spent, CSR: csr})
				require.NoError(t, err)

				time.Sleep(time.Nanosecond)
				for _, token := range []pki.Token{spent, unspent} {
					_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csr})
					requireRefused(t, err)
				}
				require.Contains(t, log.String(), "token expired")
			})
		})
	}
}

func TestARevokedTokenIsVoid(t *testing.T) {
	a, log := newAuthority(t)
	token := grant(t, a, pki.Grant{})
	require.NoError(t, a.RevokeGrant(t.Context(), token.ID(), "posted in a chat"))
	_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	requireRefused(t, err)
	require.Contains(t, log.String(), "posted in a chat")
	require.ErrorIs(t, a.RevokeGrant(t.Context(), "nobody", ""), fs.ErrNotExist)
}

func TestWhoGetsWhichName(t *testing.T) {
	for name, c := range map[string]struct {
		bound, asked string
		want         string // "" refused, "uuid" a fresh one
	}{
		"a bound token names the agent":                   {"edge", "", "edge"},
		"a bound token takes its own name":                {"edge", "edge", "edge"},
		"a bound token names an agent that exists":        {"taken", "", "taken"},
		"an unbound token takes the name asked for":       {"", "edge", "edge"},
		"an unbound token without a name gets a UUID":     {"", "", "uuid"},
		"an unbound token cannot take an agent's name":    {"", "taken", ""},
		"an unbound token cannot take what is promised":   {"", "promised", ""},
		"an unbound token cannot take a revoked agent's":  {"", "revoked", ""},
		"a bound token brings a revoked agent back":       {"revoked", "", "revoked"},
		"a name that is no DNS label is refused":          {"", "Edge.1", ""},
		"a name that could leave the URI path is refused": {"", "../agent/edge", ""},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			enroll(t, a, "taken")
			enroll(t, a, "revoked")
			grant(t, a, pki.Grant{Agent: "promised"})
			_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "revoked"})
			require.NoError(t, err)

			token := grant(t, a, pki.Grant{Agent: c.bound})
			got, err := a.Register(t.Context(), pki.Registration{Token: token, Agent: c.asked, CSR: csrOf(t, newKey(t))})
			switch c.want {
			case "":
				requireRefused(t, err)
			case "uuid":
				require.NoError(t, err)
				require.Regexp(t, `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`, got.Agent)
			default:
				require.NoError(t, err)
				require.Equal(t, c.want, got.Agent)
			}
		})
	}
}

func TestTwoUnboundTokensCannotShareAName(t *testing.T) {
	a, _ := newAuthority(t)
	var won atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		token, csr := grant(t, a, pki.Grant{}), csrOf(t, newKey(t))
		wg.Go(func() {
			if _, err := a.Register(t.Context(), pki.Registration{Token: token, Agent: "edge", CSR: csr}); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, won.Load())
}

// Every cause gives the caller the same error, and the log another one.
func TestARefusalDoesNotSayWhy(t *testing.T) {
	texts := make(map[string]bool)
	for cause, attempt := range refusals(t) {
		t.Run(cause, func(t *testing.T) {
			a, log := newAuthority(t)
			_, err := a.Register(t.Context(), attempt(t, a))
			requireRefused(t, err)
			require.Contains(t, log.String(), cause)
			texts[err.Error()] = true
		})
	}
	assert.Len(t, texts, 1)
}

// refusals makes, for each cause that the log names, a registration that is
// refused for it.
func refusals(t testing.TB) map[string]func(testing.TB, *pki.Authority) pki.Registration {
	other, err := pki.ParseToken(goodID + "." + goodSecret)
	require.NoError(t, err)
	csr := csrOf(t, newKey(t))
	with := func(token pki.Token) pki.Registration { return pki.Registration{Token: token, CSR: csr} }
	return map[string]func(testing.TB, *pki.Authority) pki.Registration{
		"unknown token": func(testing.TB, *pki.Authority) pki.Registration { return with(other) },
		"wrong secret": func(t testing.TB, a *pki.Authority) pki.Registration {
			token, err := pki.ParseToken(grant(t, a, pki.Grant{}).ID() + "." + goodSecret)
			require.NoError(t, err)
			return with(token)
		},
		"token burned": func(t testing.TB, a *pki.Authority) pki.Registration {
			token := grant(t, a, pki.Grant{})
			require.NoError(t, a.RevokeGrant(t.Context(), token.ID(), ""))
			return with(token)
		},
		"token expired": func(t testing.TB, a *pki.Authority) pki.Registration {
			return with(grant(t, a, pki.Grant{TTL: time.Nanosecond}))
		},
		"wrong name": func(t testing.TB, a *pki.Authority) pki.Registration {
			r := with(grant(t, a, pki.Grant{Agent: "edge"}))
			r.Agent = "core"
			return r
		},
		"already used with another key": func(t testing.TB, a *pki.Authority) pki.Registration {
			token := grant(t, a, pki.Grant{})
			_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
			require.NoError(t, err)
			return with(token)
		},
		"certificate of this token revoked": func(t testing.TB, a *pki.Authority) pki.Registration {
			r := with(grant(t, a, pki.Grant{}))
			c, err := a.Register(t.Context(), r)
			require.NoError(t, err)
			_, err = a.Revoke(t.Context(), pki.Revocation{Serial: c.Serial})
			require.NoError(t, err)
			return r
		},
		"bad signing request": func(t testing.TB, a *pki.Authority) pki.Registration {
			return pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: []byte("not one")}
		},
		"bad request": func(t testing.TB, a *pki.Authority) pki.Registration {
			r := with(grant(t, a, pki.Grant{}))
			r.Hostname = strings.Repeat("h", 254)
			return r
		},
		"token is not for this network": func(t testing.TB, a *pki.Authority) pki.Registration {
			return with(grant(t, a, pki.Grant{Networks: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}))
		},
		"token is for another key": func(t testing.TB, a *pki.Authority) pki.Registration {
			return with(grant(t, a, pki.Grant{Key: pki.Pin{1}}))
		},
		"key revoked": func(t testing.TB, a *pki.Authority) pki.Registration {
			key := newKey(t)
			_, err := a.Revoke(t.Context(), pki.Revocation{Key: pinOf(t, key)})
			require.NoError(t, err)
			return pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: csrOf(t, key)}
		},
		"agent was revoked after this token was granted": func(t testing.TB, a *pki.Authority) pki.Registration {
			r := with(grant(t, a, pki.Grant{Reattach: true}))
			r.Agent = "edge"
			enroll(t, a, "edge")
			time.Sleep(time.Nanosecond) // where time is fake it stands still
			_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
			require.NoError(t, err)
			return r
		},
		"locked after wrong secrets": func(t testing.TB, a *pki.Authority) pki.Registration {
			token := grant(t, a, pki.Grant{})
			wrong, err := pki.ParseToken(token.ID() + "." + goodSecret)
			require.NoError(t, err)
			for range 5 {
				_, err := a.Register(t.Context(), with(wrong))
				requireRefused(t, err)
			}
			return with(token)
		},
		"name belongs to another agent": func(t testing.TB, a *pki.Authority) pki.Registration {
			enroll(t, a, "edge")
			r := with(grant(t, a, pki.Grant{}))
			r.Agent = "edge"
			return r
		},
	}
}

func TestARequestThatIsNotUnderstoodSpendsNothing(t *testing.T) {
	a, _ := newAuthority(t)
	token, key := grant(t, a, pki.Grant{}), newKey(t)
	for _, r := range []pki.Registration{
		{Token: token},
		{Token: token, CSR: []byte("junk")},
		{Token: token, CSR: csrOf(t, key), Agent: "Not A Name"},
		{Token: token, CSR: csrOf(t, key), Metadata: map[string]string{"": "x"}},
	} {
		_, err := a.Register(t.Context(), r)
		requireRefused(t, err)
	}
	_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
	require.NoError(t, err)
}

func TestTheStoreNeverSeesASecret(t *testing.T) {
	a, log := newAuthority(t)
	path := filepath.Join(t.TempDir(), "registry")
	a.Store = openStore(t, path)
	token := grant(t, a, pki.Grant{Agent: "edge", Labels: map[string]string{"site": "zrh"}})
	_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	require.NoError(t, err)

	onDisk, err := os.ReadFile(path)
	require.NoError(t, err)
	_, secret, _ := strings.Cut(token.Reveal(), ".")
	require.Contains(t, string(onDisk), token.ID())
	require.NotContains(t, string(onDisk), secret)
	require.NotContains(t, log.String(), secret)
}

func certificatesOf(t testing.TB, a *pki.Authority, agent string) []pki.CertificateRecord {
	t.Helper()
	var all []pki.CertificateRecord
	require.NoError(t, a.Store.View(t.Context(), func(tx pki.Tx) (err error) {
		all, err = tx.Certificates(agent)
		return err
	}))
	return all
}

func agentOf(t testing.TB, a *pki.Authority, name string) (record pki.AgentRecord) {
	t.Helper()
	require.NoError(t, a.Store.View(t.Context(), func(tx pki.Tx) (err error) {
		record, err = tx.Agent(name)
		return err
	}))
	return record
}
