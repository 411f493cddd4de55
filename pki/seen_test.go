package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// connected is the state of a connection that an agent has made.
func connected(cert *x509.Certificate) tls.ConnectionState {
	return tls.ConnectionState{
		HandshakeComplete: true, Version: tls.VersionTLS13,
		PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}},
	}
}

func renewed(t testing.TB, a *pki.Authority, cert *x509.Certificate) *x509.Certificate {
	t.Helper()
	c, err := a.Renew(t.Context(), pki.Renewal{Presented: cert, CSR: csrOf(t, newKey(t))})
	require.NoError(t, err)
	return leafOf(t, c)
}

func TestTheFirstUseSpendsTheToken(t *testing.T) {
	a, log := newAuthority(t)
	r := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, newKey(t))}
	c, err := a.Register(t.Context(), r)
	require.NoError(t, err)
	again, err := a.Register(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, c, again)

	for range 2 {
		name, err := a.Identify(connected(leafOf(t, c)))
		require.NoError(t, err)
		require.Equal(t, "edge", name)
	}
	_, err = a.Register(t.Context(), r)
	requireRefused(t, err)
	require.Contains(t, log.String(), "token spent")
	require.NoError(t, a.Verify(t.Context(), leafOf(t, c)), "and nothing else")
	grants, err := a.Grants(t.Context(), "edge")
	require.NoError(t, err)
	require.Equal(t, pki.GrantRedeemed, grants[0].Status(time.Now()))
}

// The old certificate is good until the new one was seen, and not after.
func TestACertificateRetiresWhenItsSuccessorIsSeen(t *testing.T) {
	a, log := newAuthority(t)
	first := enroll(t, a, "edge").Certificate().Leaf
	second := renewed(t, a, first)
	for range 2 { // an agent that lost the new one goes on with the old
		_, err := a.Identify(connected(first))
		require.NoError(t, err)
	}
	_, err := a.Identify(connected(second))
	require.NoError(t, err)

	require.ErrorIs(t, a.Verify(t.Context(), first), pki.ErrRevoked)
	require.ErrorContains(t, a.Verify(t.Context(), first), "retired")
	_, err = a.Identify(connected(first))
	require.ErrorIs(t, err, pki.ErrRevoked)
	require.ErrorIs(t, a.VerifyConnection(connected(first)), pki.ErrRevoked)
	_, err = a.Renew(t.Context(), pki.Renewal{Presented: first, CSR: csrOf(t, newKey(t))})
	require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	require.NotContains(t, log.String(), "copied")

	third := renewed(t, a, second)
	require.NoError(t, a.Verify(t.Context(), second), "not seen yet")
	fourth := renewed(t, a, third) // a renewal is a use as well
	require.ErrorIs(t, a.Verify(t.Context(), second), pki.ErrRevoked)
	require.NoError(t, a.Verify(t.Context(), third))
	require.NoError(t, a.Verify(t.Context(), fourth))
}

// Connections that a retired certificate has are left alone: the agent is the
// same.
func TestRetirementRevokesNothing(t *testing.T) {
	a, _ := newAuthority(t)
	first := enroll(t, a, "edge").Certificate().Leaf
	_, err := a.Identify(connected(renewed(t, a, first)))
	require.NoError(t, err)
	require.NoError(t, a.Store.View(t.Context(), func(tx pki.Tx) error {
		all, err := tx.Revocations(0)
		require.Empty(t, all)
		return err
	}))
}

func TestACopyOfAnIdentityIsNoticed(t *testing.T) {
	a, log := newAuthority(t)
	first := enroll(t, a, "edge").Certificate().Leaf
	agent, thief := renewed(t, a, first), renewed(t, a, first)
	_, err := a.Identify(connected(thief))
	require.NoError(t, err)
	require.NotContains(t, log.String(), "key was copied")
	_, err = a.Identify(connected(agent))
	require.NoError(t, err)
	require.Contains(t, log.String(), "key was copied")
}

func TestIdentifyNeedsAVerifiedCertificate(t *testing.T) {
	a, _ := newAuthority(t)
	leaf := enroll(t, a, "edge").Certificate().Leaf
	unverified := connected(leaf)
	unverified.VerifiedChains = nil
	for name, cs := range map[string]tls.ConnectionState{"none": {}, "one that nobody verified": unverified} {
		_, err := a.Identify(cs)
		require.ErrorIs(t, err, pki.ErrNoIdentity, name)
	}
	stranger, _ := newAuthority(t)
	_, err := a.Identify(connected(enroll(t, stranger, "edge").Certificate().Leaf))
	require.Error(t, err)
}

// An agent that runs for years leaves one good certificate behind it, whatever
// happened on the way.
func TestAYearOfRenewals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		a.Lifetime = 10 * day
		current := enroll(t, a, "edge").Certificate().Leaf
		for range 50 {
			_, err := a.Identify(connected(current))
			require.NoError(t, err)
			time.Sleep(7 * day)
			current = renewed(t, a, current)
		}
		good := 0
		for _, c := range certificatesOf(t, a, "edge") {
			leaf, err := x509.ParseCertificate(c.Raw)
			require.NoError(t, err)
			if a.Verify(t.Context(), leaf) == nil {
				good++
			}
		}
		require.Equal(t, 2, good, "the last, and the one before until the last was seen")
	})
}
