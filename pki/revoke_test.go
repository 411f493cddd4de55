package pki_test

import (
	"context"
	"crypto/tls"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestARevokedCertificateIsRefusedInTheHandshake(t *testing.T) {
	for name, revoke := range map[string]func(*pki.Identity) pki.Revocation{
		"by agent":  func(i *pki.Identity) pki.Revocation { return pki.Revocation{Agent: i.Agent(), Reason: "lost"} },
		"by serial": func(i *pki.Identity) pki.Revocation { return pki.Revocation{Serial: i.Status().Serial, Reason: "lost"} },
	} {
		t.Run(name, func(t *testing.T) {
			a, log := newAuthority(t)
			base := localhost(serve(t, a, pki.HandlerConfig{}))
			edge, core := enroll(t, a, "edge"), enroll(t, a, "core")
			config := edge.ClientTLS()
			config.ClientSessionCache = tls.NewLRUClientSessionCache(1) // resumption must not help
			for range 2 {
				got, err := whoami(t, base, config)
				require.NoError(t, err)
				require.Equal(t, "edge", got)
			}
			revoked, err := a.Revoke(t.Context(), revoke(edge))
			require.NoError(t, err)
			require.Len(t, revoked, 1)
			require.Equal(t, edge.Status().Serial, revoked[0].Serial)

			_, err = whoami(t, base, config)
			require.ErrorContains(t, err, "bad certificate")
			require.Contains(t, log.String(), "certificate revoked")
			require.ErrorIs(t, a.Verify(t.Context(), edge.Certificate().Leaf), pki.ErrRevoked)

			got, err := whoami(t, base, core.ClientTLS())
			require.NoError(t, err)
			require.Equal(t, "core", got)

			again, err := a.Revoke(t.Context(), revoke(edge))
			require.NoError(t, err)
			require.Empty(t, again)
			require.Equal(t, "lost", certificatesOf(t, a, "edge")[0].Reason)
		})
	}
}

func TestOnlyKnownCertificatesPass(t *testing.T) {
	a, _ := newAuthority(t)
	base := localhost(serve(t, a, pki.HandlerConfig{}))
	stranger, _ := newAuthority(t)
	forgetful := &pki.Authority{Signer: a.Signer, Certificate: a.Certificate, Store: new(pki.MemoryStore)}
	elsewhere := &pki.Authority{Signer: a.Signer, Certificate: a.Certificate, Store: a.Store, TrustDomain: "example.com"}
	server, err := a.ServerTLS(tls.RequireAndVerifyClientCert, "localhost")
	require.NoError(t, err)
	serverCert, err := server.GetCertificate(nil)
	require.NoError(t, err)

	for name, cert := range map[string]*tls.Certificate{
		"of another authority":         enroll(t, stranger, "edge").Certificate(),
		"that the store does not know": enroll(t, forgetful, "edge").Certificate(),
		"of another trust domain":      enroll(t, elsewhere, "edge").Certificate(),
		"of the gateway, not an agent": serverCert,
		"of the authority":             {Certificate: [][]byte{a.Certificate.Raw}, PrivateKey: a.Signer},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := whoami(t, base, &tls.Config{RootCAs: a.Pool(), Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})
			require.Error(t, err)
			leaf := cert.Leaf
			if leaf == nil {
				leaf = a.Certificate
			}
			require.Error(t, a.Verify(t.Context(), leaf))
		})
	}
	t.Run("none at all is nobody", func(t *testing.T) {
		_, err := whoami(t, base, &tls.Config{RootCAs: a.Pool()})
		require.ErrorContains(t, err, "no verified client certificate")
	})
	t.Run("none at all is refused where one is required", func(t *testing.T) {
		_, err := whoami(t, localhost(serveWith(t, server, nil)), &tls.Config{RootCAs: a.Pool()})
		require.ErrorContains(t, err, "certificate required")
	})
}

func TestAStoreThatDoesNotAnswerLetsNobodyIn(t *testing.T) {
	a, _ := newAuthority(t)
	leaf := enroll(t, a, "edge").Certificate().Leaf
	a.Store = brokenStore{}
	require.ErrorIs(t, a.Verify(t.Context(), leaf), errFault)
	_, err := a.Renew(t.Context(), pki.Renewal{Presented: leaf, CSR: csrOf(t, newKey(t))})
	require.ErrorIs(t, err, errFault)
	require.NotErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	_, err = a.Register(t.Context(), registration(t))
	require.ErrorIs(t, err, errFault)
	_, err = a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
	require.ErrorIs(t, err, errFault)
	_, err = a.Grant(t.Context(), pki.Grant{})
	require.ErrorIs(t, err, errFault)
}

type brokenStore struct{}

func (brokenStore) View(context.Context, func(pki.Tx) error) error   { return errFault }
func (brokenStore) Update(context.Context, func(pki.Tx) error) error { return errFault }

func TestARevokedAgentCanComeBackWithANewTokenOnly(t *testing.T) {
	a, _ := newAuthority(t)
	storage := new(pki.MemoryStorage)
	used, waiting := grant(t, a, pki.Grant{Agent: "edge"}), grant(t, a, pki.Grant{Agent: "edge"})
	identity, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: used})
	require.NoError(t, err)
	_, err = a.Revoke(t.Context(), pki.Revocation{Agent: "edge", Reason: "decommissioned"})
	require.NoError(t, err)
	for _, token := range []pki.Token{used, waiting} {
		_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
		requireRefused(t, err)
	}
	again, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
	require.NoError(t, err)
	require.NoError(t, a.Verify(t.Context(), again.Certificate().Leaf))
	require.ErrorIs(t, a.Verify(t.Context(), identity.Certificate().Leaf), pki.ErrRevoked)
}

func TestRevokeNeedsOneTarget(t *testing.T) {
	a, _ := newAuthority(t)
	_, err := a.Revoke(t.Context(), pki.Revocation{})
	require.Error(t, err)
	_, err = a.Revoke(t.Context(), pki.Revocation{Agent: "edge", Serial: "01"})
	require.Error(t, err)
	_, err = a.Revoke(t.Context(), pki.Revocation{Serial: "01"})
	require.ErrorIs(t, err, fs.ErrNotExist)
	revoked, err := a.Revoke(t.Context(), pki.Revocation{Agent: "nobody"})
	require.NoError(t, err)
	require.Empty(t, revoked)
}

func TestAnExpiredCertificateIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		leaf := enroll(t, a, "edge").Certificate().Leaf
		require.NoError(t, a.Verify(t.Context(), leaf))
		time.Sleep(90*day + time.Second)
		require.ErrorContains(t, a.Verify(t.Context(), leaf), "expired")
		_, err := a.Renew(t.Context(), pki.Renewal{Presented: leaf, CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
}
