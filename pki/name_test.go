package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestCheckName(t *testing.T) {
	for name, ok := range map[string]bool{
		"a": true, "prod-eu": true, "9": true, "3-5": true, "a--b": true,
		"0d9b7a0e-8c3f-4f8e-9d59-1e1f6b1f3c11": true, strings.Repeat("a", 63): true,
		"": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, "a b": false, "a/b": false,
		"ä": false, "a\x00": false, "..": false, "*": false, strings.Repeat("a", 64): false,
	} {
		if err := pki.CheckName(name); (err == nil) != ok {
			t.Errorf("CheckName(%q): %v", name, err)
		}
	}
}

func TestAgentNameIsInTheVerifiedCertificateOnly(t *testing.T) {
	withURIs := func(raw ...string) *x509.Certificate {
		cert := &x509.Certificate{}
		cert.Subject.CommonName = "admin"
		cert.DNSNames = []string{"admin"}
		for _, r := range raw {
			u, err := url.Parse(r)
			require.NoError(t, err)
			cert.URIs = append(cert.URIs, u)
		}
		return cert
	}
	verified := func(cert *x509.Certificate) tls.ConnectionState {
		return tls.ConnectionState{
			PeerCertificates: []*x509.Certificate{cert}, VerifiedChains: [][]*x509.Certificate{{cert}},
		}
	}
	good := withURIs("outgate://example.com/agent/edge")
	name, err := pki.AgentName(verified(good))
	require.NoError(t, err)
	require.Equal(t, "edge", name)

	for why, cs := range map[string]tls.ConnectionState{
		"no certificate":      {},
		"not verified":        {PeerCertificates: []*x509.Certificate{good}},
		"an empty chain":      {VerifiedChains: [][]*x509.Certificate{{}}},
		"a common name only":  verified(withURIs()),
		"two names":           verified(withURIs("outgate://example.com/agent/edge", "outgate://example.com/agent/core")),
		"another scheme":      verified(withURIs("spiffe://example.com/agent/edge")),
		"another kind":        verified(withURIs("outgate://example.com/gateway/edge")),
		"no name":             verified(withURIs("outgate://example.com/agent/")),
		"a deeper path":       verified(withURIs("outgate://example.com/agent/edge/x")),
		"a final slash":       verified(withURIs("outgate://example.com/agent/edge/")),
		"a query":             verified(withURIs("outgate://example.com/agent/edge?x")),
		"an empty query":      verified(withURIs("outgate://example.com/agent/edge?")),
		"a fragment":          verified(withURIs("outgate://example.com/agent/edge#x")),
		"a user":              verified(withURIs("outgate://root@example.com/agent/edge")),
		"a port":              verified(withURIs("outgate://example.com:1/agent/edge")),
		"no trust domain":     verified(withURIs("outgate:///agent/edge")),
		"an opaque URI":       verified(withURIs("outgate:agent/edge")),
		"upper case":          verified(withURIs("outgate://example.com/agent/Edge")),
		"an escaped letter":   verified(withURIs("outgate://example.com/agent/%65dge")),
		"an escaped slash":    verified(withURIs("outgate://example.com/agent%2Fedge")),
		"a path out of there": verified(withURIs("outgate://example.com/agent/../agent/edge")),
	} {
		t.Run(why, func(t *testing.T) {
			name, err := pki.AgentName(cs)
			require.ErrorIs(t, err, pki.ErrNoIdentity)
			require.Empty(t, name)
		})
	}
}
