package pki_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// A revoked certificate stays revoked when it is written in another way. What is
// revoked is its serial number, which its signature covers, and not its bytes.
func TestARevokedCertificateCannotBeDisguised(t *testing.T) {
	ca := issueCA(t, nil, newKey(t), nil)
	other := issueCA(t, nil, ca.key, func(c *x509.Certificate) { c.Subject = ca.cert.Subject }) // same key and name, issued anew
	a := ca.authority()
	a.Trusted = []*x509.Certificate{other.cert}
	a.Follower = &pki.Follower{Store: a.Store}
	follow(t, a.Follower)
	base := localhost(serve(t, a, pki.HandlerConfig{}))
	key := newKey(t)
	c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)})
	require.NoError(t, err)
	good := c.Certificates[0]

	disguises := map[string][][]byte{
		"none":                       {good},
		"its signature mirrored":     {remade(t, good, func(p *certificateParts) { p.Signature = bitString(mirrored(t, p.Signature.Bytes)) })},
		"its lengths in a long form": {longForm(good)},
		"something behind it":        {append(append([]byte{}, good...), 0)},
		"an algorithm with NULL": {remade(t, good, func(p *certificateParts) {
			p.Algorithm.Parameters = asn1.NullRawValue
		})},
		"another issuer above it": {good, other.cert.Raw},
		"its issuer twice":        {good, ca.cert.Raw, ca.cert.Raw},
	}
	connect := func(chain [][]byte) (string, error) {
		return whoami(t, base, &tls.Config{
			RootCAs: a.Pool(), MinVersion: tls.VersionTLS13,
			Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: key}},
		})
	}
	admitted := 0
	for _, chain := range disguises {
		if name, err := connect(chain); err == nil {
			require.Equal(t, "edge", name)
			admitted++
		}
	}
	require.GreaterOrEqual(t, admitted, 3, "disguises that fool nobody prove nothing")

	_, err = a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
	require.NoError(t, err)
	for name, chain := range disguises {
		t.Run(name, func(t *testing.T) {
			_, err := connect(chain)
			require.Error(t, err)
			leaf, err := x509.ParseCertificate(chain[0])
			if err != nil {
				return // nobody reads it
			}
			require.Error(t, a.Verify(t.Context(), leaf))
			_, err = a.Renew(t.Context(), pki.Renewal{Presented: leaf, CSR: csrOf(t, newKey(t))})
			require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
			require.Eventually(t, func() bool { return a.Follower.Check(connected(leaf)) != nil }, 10*time.Second, time.Millisecond)
			require.ErrorIs(t, a.Follower.Check(connected(leaf)), pki.ErrRevoked)
		})
	}
}

// certificateParts is a certificate (RFC 5280, 4.1) whose signed part is kept as it is.
type certificateParts = certificationRequest

func remade(t testing.TB, der []byte, change func(*certificateParts)) []byte {
	t.Helper()
	var parts certificateParts
	_, err := asn1.Unmarshal(der, &parts)
	require.NoError(t, err)
	change(&parts)
	der, err = asn1.Marshal(parts)
	require.NoError(t, err)
	return der
}
