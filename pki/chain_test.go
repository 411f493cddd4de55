package pki_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// kms is a signer that nobody can look into.
type kms struct{ key crypto.Signer }

func (k kms) Public() crypto.PublicKey { return k.key.Public() }

func (k kms) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	return k.key.Sign(rand.Reader, digest, opts) // with its own randomness
}

type authorityCert struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// issueCA makes a CA below parent, or a root. change may alter what it says.
func issueCA(t testing.TB, parent *authorityCert, key crypto.Signer, change func(*x509.Certificate)) *authorityCert {
	t.Helper()
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "CA " + serial.String()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * day),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent = &authorityCert{template, key}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent.cert, key.Public(), parent.key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authorityCert{cert, key}
}

func (c *authorityCert) authority(chain ...*authorityCert) *pki.Authority {
	a := &pki.Authority{Signer: kms{c.key}, Certificate: c.cert, Store: new(pki.MemoryStore)}
	for _, above := range chain {
		a.Chain = append(a.Chain, above.cert)
	}
	return a
}

// An authority may sign with any kind of key, through any kind of signer, and the
// whole of it works over real TLS.
func TestAnySignerWillDo(t *testing.T) {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "Ed25519": ed, "RSA": rsaKey} {
		t.Run(name, func(t *testing.T) {
			a := issueCA(t, nil, key, nil).authority()
			base := serve(t, a, pki.HandlerConfig{})
			identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), clientOf(a, base),
				pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
			require.NoError(t, err)
			got, err := whoami(t, localhost(base), identity.ClientTLS())
			require.NoError(t, err)
			require.Equal(t, "edge", got)
		})
	}
}

func TestAChainOfAuthorities(t *testing.T) {
	root := issueCA(t, nil, newKey(t), nil)
	middle := issueCA(t, root, newKey(t), nil)
	issuing := issueCA(t, middle, newKey(t), func(c *x509.Certificate) { c.MaxPathLenZero = true })
	a := issuing.authority(middle, root)
	base := serve(t, a, pki.HandlerConfig{})

	for name, pinned := range map[string]*authorityCert{"root": root, "middle": middle, "issuing": issuing} {
		t.Run("an agent pins the "+name, func(t *testing.T) {
			client := &pki.Client{Gateway: localhost(base), Pins: []pki.Pin{pki.PinOf(pinned.cert)}}
			identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), client, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.NoError(t, err)
			got, err := whoami(t, localhost(base), identity.ClientTLS())
			require.NoError(t, err)
			require.Equal(t, identity.Agent(), got)
		})
	}
	c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, newKey(t))})
	require.NoError(t, err)
	require.Equal(t, [][]byte{root.cert.Raw}, c.Roots, "agents trust the root")
	require.Equal(t, [][]byte{issuing.cert.Raw, middle.cert.Raw}, c.Certificates[1:], "and present the rest")
	requireTemplate(t, a, leafOf(t, c), "edge", leafOf(t, c).PublicKey)

	t.Run("a sibling of the authority is a stranger", func(t *testing.T) {
		sibling := issueCA(t, middle, newKey(t), nil).authority(middle, root)
		sibling.Store = a.Store // even if it knows the serial number
		leaf := enroll(t, sibling, "core").Certificate()
		require.Error(t, a.Verify(t.Context(), leaf.Leaf))
		_, err := whoami(t, localhost(base), &tls.Config{RootCAs: pool(root.cert), Certificates: []tls.Certificate{*leaf}})
		require.Error(t, err)
	})
	t.Run("no certificate outlives the chain", func(t *testing.T) {
		short := issueCA(t, root, newKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(10 * day) })
		a := issueCA(t, short, newKey(t), nil).authority(short, root)
		require.Equal(t, short.cert.NotAfter, enroll(t, a, "edge").Status().NotAfter)
	})
	for name, broken := range map[string]*pki.Authority{
		"without its middle":  issuing.authority(root),
		"in the wrong order":  issuing.authority(root, middle),
		"of another family":   issuing.authority(issueCA(t, nil, newKey(t), nil)),
		"too long":            issueCA(t, issuing, newKey(t), nil).authority(issuing, middle, root),
		"with an agent in it": issuing.authority(middle, root, &authorityCert{cert: enroll(t, a, "dmz").Certificate().Leaf}),
		"that is for servers only": issueCA(t, root, newKey(t), func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}).authority(root),
	} {
		t.Run("a chain "+name+" is refused", func(t *testing.T) {
			_, err := broken.Grant(t.Context(), pki.Grant{})
			require.Error(t, err)
		})
	}
}

func anyToken(t testing.TB) pki.Token {
	t.Helper()
	token, err := pki.ParseToken(goodID + "." + goodSecret)
	require.NoError(t, err)
	return token
}

func pool(certs ...*x509.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c)
	}
	return pool
}

// handshake is a TLS handshake of an agent with a gateway; it returns the name that
// the gateway sees.
func handshake(t testing.TB, a *pki.Authority, identity *pki.Identity) (string, error) {
	t.Helper()
	config, err := a.ServerTLS(tls.RequireAndVerifyClientCert, "gateway.example.com")
	require.NoError(t, err)
	client := identity.ClientTLS()
	client.ServerName = "gateway.example.com"
	here, there := net.Pipe()
	defer there.Close()
	server := tls.Server(there, config)
	failed := make(chan error, 1)
	go func() {
		err := tls.Client(here, client).HandshakeContext(t.Context())
		here.Close()
		failed <- err
	}()
	if err := errors.Join(server.HandshakeContext(t.Context()), <-failed); err != nil {
		return "", err
	}
	return a.Identify(server.ConnectionState())
}

// A new authority takes over from the old one while agents run, and nobody is
// locked out.
func TestAnAuthorityIsReplacedWhileAgentsRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := new(pki.MemoryStore)
		before, after := issueCA(t, nil, newKey(t), func(c *x509.Certificate) { c.NotAfter = time.Now().Add(300 * day) }), issueCA(t, nil, newKey(t), nil)
		at := func(current *authorityCert, trusted ...*x509.Certificate) *pki.Authority {
			a := current.authority()
			a.Store, a.Trusted = store, trusted
			return a
		}
		renew := func(a *pki.Authority, agent *pki.Identity) *pki.Identity {
			registrar := registrarFunc(func(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
				return a.Renew(ctx, pki.Renewal{Presented: agent.Certificate().Leaf, CSR: r.CSR})
			})
			fresh, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), registrar, pki.Registration{Token: anyToken(t)})
			require.NoError(t, err)
			return fresh
		}
		connect := func(a *pki.Authority, agent *pki.Identity) error {
			name, err := handshake(t, a, agent)
			if err == nil {
				require.Equal(t, "edge", name)
			}
			return err
		}

		// 1. The new authority is announced. The old one signs.
		old := at(before)
		agent := enroll(t, old, "edge")
		announced := at(before, after.cert)
		require.NoError(t, connect(announced, agent))
		time.Sleep(60 * day)
		hasHeard := renew(announced, agent)
		require.NoError(t, connect(announced, hasHeard))

		// 2. The new one signs. Agents that have heard of it see no difference.
		replaced := at(after, before.cert)
		require.NoError(t, connect(replaced, hasHeard))
		require.Error(t, connect(replaced, agent), "who has not heard cannot know the gateway")
		time.Sleep(60 * day)
		moved := renew(replaced, hasHeard)
		require.Equal(t, after.cert.Subject.String(), moved.Certificate().Leaf.Issuer.String())
		require.NoError(t, connect(replaced, moved))
		c, err := replaced.Register(t.Context(), pki.Registration{Token: grant(t, replaced, pki.Grant{}), CSR: csrOf(t, newKey(t))})
		require.NoError(t, err)
		require.Len(t, c.Roots, 2, "both are trusted until the old one ends")

		// 3. The old one has ended, or is taken away before that.
		alone := at(after)
		require.NoError(t, connect(alone, moved))
		require.Error(t, alone.Verify(t.Context(), hasHeard.Certificate().Leaf))
		time.Sleep(200 * day)
		c, err = replaced.Register(t.Context(), pki.Registration{Token: grant(t, replaced, pki.Grant{}), CSR: csrOf(t, newKey(t))})
		require.NoError(t, err)
		require.Equal(t, [][]byte{after.cert.Raw}, c.Roots, "nobody is told to trust what has ended")
	})
}

// A key of the authority is no agent's, whichever authority it is.
func TestAnAuthoritysKeyIsNoAgents(t *testing.T) {
	root := issueCA(t, nil, newKey(t), nil)
	other := issueCA(t, nil, newKey(t), nil)
	issuing := issueCA(t, root, newKey(t), nil)
	a := issuing.authority(root)
	a.Trusted = []*x509.Certificate{other.cert}
	for _, ca := range []*authorityCert{root, other, issuing} {
		_, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: csrOf(t, ca.key)})
		requireRefused(t, err)
	}
}

func TestAnExpiredCertificateIsRenewedWithinTheGrace(t *testing.T) {
	for name, c := range map[string]struct {
		grace, late time.Duration
		ok          bool
	}{
		"none unless configured": {0, time.Second, false},
		"within it":              {7 * day, 7*day - time.Minute, true},
		"after it":               {7 * day, 7*day + time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				a.RenewalGrace = c.grace
				first := enroll(t, a, "edge").Certificate().Leaf
				stolen := enroll(t, a, "core").Certificate().Leaf
				_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "core"})
				require.NoError(t, err)
				time.Sleep(time.Until(first.NotAfter) + c.late)
				require.Error(t, a.Verify(t.Context(), first), "it lets nobody in")
				fresh, err := a.Renew(t.Context(), pki.Renewal{Presented: first, CSR: csrOf(t, newKey(t))})
				if c.ok {
					require.NoError(t, err)
					require.NoError(t, a.Verify(t.Context(), leafOf(t, fresh)))
				} else {
					require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
				}
				_, err = a.Renew(t.Context(), pki.Renewal{Presented: stolen, CSR: csrOf(t, newKey(t))})
				require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true}, "revoked is revoked")
			})
		})
	}
	a, _ := newAuthority(t)
	a.RenewalGrace = 31 * day
	_, err := a.Grant(t.Context(), pki.Grant{})
	require.ErrorContains(t, err, "RenewalGrace")
}
