package pki_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" //nolint:depguard // the test signs what must be refused
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"io"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// Whatever a signing request asks for, the certificate says what the grant says.
func TestOnlyTheKeyOfASigningRequestCounts(t *testing.T) {
	evil, err := url.Parse("outgate://outgate/agent/admin")
	require.NoError(t, err)
	extension := func(id asn1.ObjectIdentifier, critical bool, value any) []pkix.Extension {
		der, err := asn1.Marshal(value)
		require.NoError(t, err)
		return []pkix.Extension{{Id: id, Critical: critical, Value: der}}
	}
	type basicConstraints struct {
		IsCA       bool
		MaxPathLen int
	}
	for name, request := range map[string]x509.CertificateRequest{
		"nothing":                  {},
		"another common name":      {Subject: pkix.Name{CommonName: "admin"}},
		"a name with NUL":          {Subject: pkix.Name{CommonName: "admin\x00.example"}},
		"an organisation":          {Subject: pkix.Name{Organization: []string{"system:masters"}}},
		"a subject of 8 KiB":       {Subject: pkix.Name{CommonName: strings.Repeat("a", 8<<10)}},
		"another identity":         {URIs: []*url.URL{evil}},
		"two identities":           {URIs: []*url.URL{evil, evil}},
		"a host name":              {DNSNames: []string{"gateway.example.com"}},
		"a wildcard":               {DNSNames: []string{"*"}},
		"an address":               {IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
		"a mail address":           {EmailAddresses: []string{"root@example.com"}},
		"to be a CA":               {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 19}, true, basicConstraints{true, 3})},
		"to sign certificates":     {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 15}, true, asn1.BitString{Bytes: []byte{0x06}, BitLength: 7})},
		"to be a server":           {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 37}, false, []asn1.ObjectIdentifier{{1, 3, 6, 1, 5, 5, 7, 3, 1}})},
		"any purpose":              {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 37}, false, []asn1.ObjectIdentifier{{2, 5, 29, 37, 0}})},
		"another authority key":    {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 35}, false, []byte("key"))},
		"name constraints":         {ExtraExtensions: extension(asn1.ObjectIdentifier{2, 5, 29, 30}, true, []byte("x"))},
		"an unknown extension":     {ExtraExtensions: extension(asn1.ObjectIdentifier{1, 2, 3, 4}, false, "x")},
		"an unknown critical":      {ExtraExtensions: extension(asn1.ObjectIdentifier{1, 2, 3, 4}, true, "x")},
		"a certificate template":   {ExtraExtensions: extension(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 20, 2}, false, "SubCA")},
		"its signature by SHA-512": {SignatureAlgorithm: x509.ECDSAWithSHA512},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			key := newKey(t)
			csr, err := x509.CreateCertificateRequest(rand.Reader, &request, key)
			require.NoError(t, err)
			c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csr})
			require.NoError(t, err)
			requireTemplate(t, a, leafOf(t, c), "edge", key.Public())
		})
	}
}

// requireTemplate fails unless the certificate says these things and no other.
func requireTemplate(t *testing.T, a *pki.Authority, cert *x509.Certificate, name string, key crypto.PublicKey) {
	t.Helper()
	require.Equal(t, "CN="+name, cert.Subject.String())
	require.Len(t, cert.URIs, 1)
	require.Equal(t, "outgate://outgate/agent/"+name, cert.URIs[0].String())
	require.Empty(t, cert.DNSNames)
	require.Empty(t, cert.IPAddresses)
	require.Empty(t, cert.EmailAddresses)
	require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, cert.ExtKeyUsage)
	require.Empty(t, cert.UnknownExtKeyUsage)
	require.Equal(t, x509.KeyUsageDigitalSignature, cert.KeyUsage)
	require.True(t, cert.BasicConstraintsValid)
	require.False(t, cert.IsCA)
	require.Equal(t, key, cert.PublicKey)
	require.Equal(t, 128, cert.SerialNumber.BitLen())
	require.Len(t, pki.SerialOf(cert), 32)
	require.WithinDuration(t, time.Now().Add(-5*time.Minute), cert.NotBefore, 5*time.Second)
	require.WithinDuration(t, time.Now().Add(90*24*time.Hour), cert.NotAfter, 5*time.Second)
	require.NoError(t, cert.CheckSignatureFrom(a.Certificate))
	// Key usage, extended key usage, basic constraints, authority key, names.
	require.Len(t, cert.Extensions, 5)
}

func TestKeysThatAreAccepted(t *testing.T) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	for name, key := range map[string]crypto.Signer{"P-256": newKey(t), "P-384": p384, "Ed25519": ed} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			c, err := a.Register(t.Context(), pki.Registration{
				Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key),
			})
			require.NoError(t, err)
			requireTemplate(t, a, leafOf(t, c), "edge", key.Public())
		})
	}
}

func TestSigningRequestsThatAreRefused(t *testing.T) {
	good := csrOf(t, newKey(t))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	require.NoError(t, err)
	p521, err := ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	require.NoError(t, err)
	authority, _ := newAuthority(t)
	flip := func(at int) []byte {
		csr := bytes.Clone(good)
		csr[(at+len(csr))%len(csr)] ^= 1
		return csr
	}
	certificate := authority.Certificate.Raw
	for name, csr := range map[string][]byte{
		"nothing":                       nil,
		"junk":                          []byte("-----BEGIN CERTIFICATE REQUEST-----"),
		"an RSA key":                    csrOf(t, rsaKey),
		"a P-224 key":                   csrOf(t, p224),
		"a P-521 key":                   csrOf(t, p521),
		"the authority's own key":       csrOf(t, authority.Signer),
		"a changed signature":           flip(-1),
		"a changed header":              flip(0),
		"a changed version":             flip(6),
		"another key's signature":       splice(t, good, csrOf(t, newKey(t))),
		"a signature by SHA-1":          signedBySHA1(t),
		"half of it":                    good[:len(good)/2],
		"one byte missing":              good[:len(good)-1],
		"one byte more":                 append(bytes.Clone(good), 0),
		"two of them":                   append(bytes.Clone(good), good...),
		"a certificate":                 certificate,
		"17 KiB":                        bigCSR(t, 17<<10),
		"10 MB":                         bytes.Repeat([]byte{0x30}, 10<<20),
		"an endless length":             {0x30, 0x84, 0xff, 0xff, 0xff, 0xff},
		"a length of a length too long": {0x30, 0xff},
		"deep nesting":                  bytes.Repeat([]byte{0x30, 0x80}, 4<<10),
		"indefinite length":             append([]byte{0x30, 0x80}, good[4:]...),
	} {
		t.Run(name, func(t *testing.T) {
			token := grant(t, authority, pki.Grant{})
			_, err := authority.Register(t.Context(), pki.Registration{Token: token, CSR: csr})
			requireRefused(t, err)
			// Nothing was spent.
			_, err = authority.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
			require.NoError(t, err)
		})
	}
}

type certificationRequest struct {
	TBS       asn1.RawValue
	Algorithm pkix.AlgorithmIdentifier
	Signature asn1.BitString
}

func parseCSR(t *testing.T, csr []byte) (parsed certificationRequest) {
	t.Helper()
	_, err := asn1.Unmarshal(csr, &parsed)
	require.NoError(t, err)
	return parsed
}

// splice puts the signature of one request under another.
func splice(t *testing.T, request, signature []byte) []byte {
	t.Helper()
	spliced := parseCSR(t, request)
	spliced.Signature = parseCSR(t, signature).Signature
	der, err := asn1.Marshal(spliced)
	require.NoError(t, err)
	return der
}

func signedBySHA1(t *testing.T) []byte {
	t.Helper()
	key := newKey(t)
	request := parseCSR(t, csrOf(t, key))
	request.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 1} // ecdsa-with-SHA1
	digest := sha1.Sum(request.TBS.FullBytes)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	require.NoError(t, err)
	request.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	der, err := asn1.Marshal(request)
	require.NoError(t, err)
	parsed, err := x509.ParseCertificateRequest(der)
	require.NoError(t, err)
	require.NoError(t, parsed.CheckSignature(), "the request itself must be in order")
	return der
}

func bigCSR(t *testing.T, size int) []byte {
	t.Helper()
	csr, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{Subject: pkix.Name{CommonName: strings.Repeat("a", size)}}, newKey(t))
	require.NoError(t, err)
	return csr
}

// A signer that does not sign what it was given gets no certificate out.
func TestAFaultySignerIsFoundOut(t *testing.T) {
	a, _ := newAuthority(t)
	a.Signer = brokenSigner{a.Signer}
	_, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: csrOf(t, newKey(t))})
	require.Error(t, err)
	require.NotErrorIs(t, err, &pki.RegistrationError{})
	require.Empty(t, certificatesOf(t, a, ""))
}

type brokenSigner struct{ crypto.Signer }

func (s brokenSigner) Sign(_ io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	digest = bytes.Clone(digest)
	digest[0] ^= 1
	return s.Signer.Sign(rand.Reader, digest, opts)
}
