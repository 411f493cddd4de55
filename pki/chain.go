package pki

import (
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// checkChain verifies what the owner configured, once: a certificate that no
// agent could verify is better not issued.
func (a *Authority) checkChain() error {
	for _, cert := range a.authorities() {
		if cert == nil || !cert.IsCA || !cert.BasicConstraintsValid {
			return errors.New("pki: Authority: Chain and Trusted hold certificates of authorities only")
		}
	}
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	begin, below := a.Certificate.NotBefore, a.Certificate
	for i, cert := range a.Chain {
		if err := below.CheckSignatureFrom(cert); err != nil {
			return fmt.Errorf("pki: Authority: Chain[%d] is not the issuer of the one before it: %w", i, err)
		}
		if cert.MaxPathLen >= 0 && i+1 > cert.MaxPathLen {
			return fmt.Errorf("pki: Authority: Chain[%d] allows %d authorities below it, and there are %d", i, cert.MaxPathLen, i+1)
		}
		intermediates.AddCert(cert)
		begin, below = later(begin, cert.NotBefore), cert
	}
	roots.AddCert(a.root())
	_, err := a.Certificate.Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		CurrentTime:   begin, // when all of it is valid; sign looks at the end
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return fmt.Errorf("pki: Authority: Certificate does not chain to the last of Chain: %w", err)
	}
	return nil
}

// root is what agents trust.
func (a *Authority) root() *x509.Certificate {
	if len(a.Chain) == 0 {
		return a.Certificate
	}
	return a.Chain[len(a.Chain)-1]
}

// intermediates (DER) are what stands between a certificate and the root.
func (a *Authority) intermediates() [][]byte {
	if len(a.Chain) == 0 {
		return nil
	}
	chain := [][]byte{a.Certificate.Raw}
	for _, cert := range a.Chain[:len(a.Chain)-1] {
		chain = append(chain, cert.Raw)
	}
	return chain
}

// roots (DER) are what agents are told to trust: no authority that has ended.
func (a *Authority) roots(now time.Time) [][]byte {
	all := [][]byte{a.root().Raw}
	for _, cert := range a.Trusted {
		if now.Before(cert.NotAfter) {
			all = append(all, cert.Raw)
		}
	}
	return all
}

// authorities are all that Authority knows, itself first.
func (a *Authority) authorities() []*x509.Certificate {
	all := append([]*x509.Certificate{a.Certificate}, a.Chain...)
	return append(all, a.Trusted...)
}

// valid is the time that certificates can be issued for.
func (a *Authority) valid() (from, to time.Time) {
	from, to = a.Certificate.NotBefore, a.Certificate.NotAfter
	for _, cert := range a.Chain {
		from, to = later(from, cert.NotBefore), earlier(to, cert.NotAfter)
	}
	return from, to
}

// Pool is the set of authorities to verify agents by: this one, and those in
// Trusted.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	if a.Certificate != nil {
		pool.AddCert(a.Certificate)
	}
	for _, cert := range a.Trusted {
		pool.AddCert(cert)
	}
	return pool
}
