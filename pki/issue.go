package pki

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"slices"
	"time"
)

// backdate lets a machine whose clock is a little slow use its certificate at
// once. A certificate that lives for minutes only is backdated by less.
const backdate = 5 * time.Minute

// agentTemplate is all that an agent's certificate says; nothing of it comes
// from the agent.
func (a *Authority) agentTemplate(name string, now time.Time) *x509.Certificate {
	return a.template(&x509.Certificate{
		Subject:     pkix.Name{CommonName: name},
		URIs:        []*url.URL{agentURI(a.domain(), name)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, now)
}

// serverTemplate is for a gateway that is reached by these names and addresses.
func (a *Authority) serverTemplate(names []string, now time.Time) *x509.Certificate {
	t := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "outgate gateway"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, name := range names {
		if ip := net.ParseIP(name); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, name)
		}
	}
	return a.template(t, now)
}

func (a *Authority) template(t *x509.Certificate, now time.Time) *x509.Certificate {
	t.SerialNumber = newSerial()
	t.NotBefore = now.Add(-min(backdate, a.lifetime()/10)).UTC().Truncate(time.Second)
	t.NotAfter = now.Add(a.lifetime()).UTC().Truncate(time.Second)
	_, end := a.valid()
	t.NotAfter = earlier(t.NotAfter, end)
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.BasicConstraintsValid = true // CA: false, spelled out
	return t
}

// newSerial is a random number of 128 bits, the first of them set: as unguessable
// as RFC 5280 and the CA/Browser Forum ask, and always written in 32 digits.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[0] |= 0x80
	return new(big.Int).SetBytes(b[:])
}

// sign issues a certificate and reads it back: a signer or an encoder that does
// anything but what the template says is found out before anybody gets the
// certificate.
func (a *Authority) sign(template *x509.Certificate, key crypto.PublicKey) (*x509.Certificate, error) {
	now := time.Now()
	if from, to := a.valid(); now.Before(from) || now.After(to) {
		return nil, fmt.Errorf("pki: authority is valid from %s to %s only; is the clock of this machine right?",
			from.Format(time.RFC3339), to.Format(time.RFC3339))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.Certificate, key, a.Signer)
	if err != nil {
		return nil, fmt.Errorf("pki: sign: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("pki: read back what was signed: %w", err)
	}
	if err := a.compare(cert, template, key); err != nil {
		return nil, fmt.Errorf("pki: issued certificate is not what was asked of the signer: %w", err)
	}
	return cert, nil
}

func (a *Authority) compare(got, want *x509.Certificate, key crypto.PublicKey) error {
	if err := got.CheckSignatureFrom(a.Certificate); err != nil {
		return err
	}
	if !sameKey(got.PublicKey, key) {
		return errors.New("another key")
	}
	switch {
	case got.SerialNumber.Cmp(want.SerialNumber) != 0:
		return errors.New("another serial number")
	case !got.NotBefore.Equal(want.NotBefore) || !got.NotAfter.Equal(want.NotAfter):
		return errors.New("other dates")
	case got.IsCA || !got.BasicConstraintsValid || got.KeyUsage != want.KeyUsage:
		return errors.New("other rights")
	case !slices.Equal(got.ExtKeyUsage, want.ExtKeyUsage) || len(got.UnknownExtKeyUsage) > 0:
		return errors.New("another purpose")
	case got.Subject.CommonName != want.Subject.CommonName || len(got.Subject.Names) != 1:
		return errors.New("another subject")
	case !slices.Equal(got.DNSNames, want.DNSNames) || len(got.EmailAddresses) > 0:
		return errors.New("other names")
	case !slices.EqualFunc(got.IPAddresses, want.IPAddresses, net.IP.Equal):
		return errors.New("other addresses")
	case !slices.EqualFunc(got.URIs, want.URIs, func(a, b *url.URL) bool { return a.String() == b.String() }):
		return errors.New("another identity")
	case slices.ContainsFunc(got.Extensions, func(e pkix.Extension) bool { return !expectedExtension(e.Id) }):
		return errors.New("unknown extensions")
	case !bytes.Equal(got.RawIssuer, a.Certificate.RawSubject):
		return errors.New("another issuer")
	}
	return nil
}

// expectedExtension knows those that come of a template: key usage, alternative
// names, basic constraints, authority key and extended key usage (RFC 5280,
// 4.2.1).
func expectedExtension(id asn1.ObjectIdentifier) bool {
	return len(id) == 4 && id[0] == 2 && id[1] == 5 && id[2] == 29 && slices.Contains([]int{15, 17, 19, 35, 37}, id[3])
}
