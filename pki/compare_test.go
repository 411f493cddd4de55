package pki

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Whatever differs from the template keeps a certificate from being issued.
func TestACertificateThatIsNotTheTemplateIsNotIssued(t *testing.T) {
	signer, cert, err := NewCA("test")
	require.NoError(t, err)
	a := &Authority{Signer: signer, Certificate: cert, Store: new(MemoryStore)}
	key, err := newKey()
	require.NoError(t, err)
	other, err := newKey()
	require.NoError(t, err)
	otherSigner, otherCert, err := NewCA("test")
	require.NoError(t, err)

	now := time.Now()
	want := a.agentTemplate("edge", now)
	for name, change := range map[string]func(c *x509.Certificate){
		"":                      func(*x509.Certificate) {},
		"another serial number": func(c *x509.Certificate) { c.SerialNumber = big.NewInt(1) },
		"an earlier begin":      func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Second) },
		"a later end":           func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) },
		"a CA":                  func(c *x509.Certificate) { c.IsCA = true },
		"no basic constraints":  func(c *x509.Certificate) { c.BasicConstraintsValid = false },
		"another key usage":     func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign },
		"a server":              func(c *x509.Certificate) { c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth) },
		"any purpose":           func(c *x509.Certificate) { c.UnknownExtKeyUsage = append(c.UnknownExtKeyUsage, []int{1, 2, 3}) },
		"another name":          func(c *x509.Certificate) { c.Subject.CommonName = "core" },
		"an organisation":       func(c *x509.Certificate) { c.Subject.Organization = []string{"admins"} },
		"a host name":           func(c *x509.Certificate) { c.DNSNames = []string{"localhost"} },
		"a mail address":        func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.c"} },
		"an address":            func(c *x509.Certificate) { c.IPAddresses = []net.IP{net.IPv4bcast} },
		"another identity":      func(c *x509.Certificate) { c.URIs = []*url.URL{agentURI("outgate", "core")} },
		"a second identity":     func(c *x509.Certificate) { c.URIs = append(c.URIs, agentURI("outgate", "core")) },
		"an unknown extension that nobody must know": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Value: []byte{5, 0}}}
		},
		"an unknown extension": func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			template := *want
			change(&template)
			got := signAs(t, &template, cert, key.Public(), signer)
			if name == "" {
				require.NoError(t, a.compare(got, want, key.Public()))
				return
			}
			require.Error(t, a.compare(got, want, key.Public()))
		})
	}
	require.Error(t, a.compare(signAs(t, want, cert, other.Public(), signer), want, key.Public()))
	require.Error(t, a.compare(signAs(t, want, otherCert, key.Public(), otherSigner), want, key.Public()))
}

func signAs(t *testing.T, template, parent *x509.Certificate, key crypto.PublicKey, by crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key, by)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}
