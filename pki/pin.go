package pki

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

const pinPrefix = "sha256:"

// Pin is the SHA-256 of a certificate's public key (SubjectPublicKeyInfo, as in
// RFC 7469), so it outlives a renewal that keeps the key. Written out it is
// "sha256:" and 64 hex digits. A pin is public. The zero Pin matches nothing.
//
// Pin the authority rather than the gateway: [Authority.ServerTLS] presents the
// authority's certificate beside its own, whose key is new at each start.
type Pin [sha256.Size]byte

// PinOf is the pin of a certificate.
func PinOf(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// ParsePin reads a pin. It refuses the hash of no input at all, which is what a
// shell pipeline prints when its first half has failed.
func ParsePin(s string) (Pin, error) {
	digits, found := strings.CutPrefix(s, pinPrefix)
	if !found {
		return Pin{}, fmt.Errorf("pki: pin %.80q: must begin with %q", s, pinPrefix)
	}
	var p Pin
	if len(digits) != hex.EncodedLen(len(p)) {
		return Pin{}, fmt.Errorf("pki: pin %.80q: need %d hex digits after %q", s, hex.EncodedLen(len(p)), pinPrefix)
	}
	if _, err := hex.Decode(p[:], []byte(digits)); err != nil {
		return Pin{}, fmt.Errorf("pki: pin %.80q: %w", s, err)
	}
	if err := p.check(); err != nil {
		return Pin{}, err
	}
	return p, nil
}

func (p Pin) check() error {
	if p == sha256.Sum256(nil) {
		return errors.New("pki: pin is the SHA-256 of nothing: the command that computed it read no key; " +
			`for an EC key use "openssl pkey -pubin -outform DER"`)
	}
	if p == (Pin{}) {
		return errors.New("pki: pin is all zeros")
	}
	return nil
}

func (p Pin) String() string { return pinPrefix + hex.EncodeToString(p[:]) }

// MarshalText writes the pin as String does.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the pin as [ParsePin] does.
func (p *Pin) UnmarshalText(text []byte) error {
	parsed, err := ParsePin(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// pinnedTLS trusts a server that presents a pinned certificate: its own, or one
// that its own chains to. Name, dates and usage are verified all the same.
func pinnedTLS(pins []Pin, name string) (*tls.Config, error) {
	if name == "" {
		return nil, errors.New("pki: pins need the server's name")
	}
	for _, p := range pins {
		if err := p.check(); err != nil {
			return nil, err
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: name,
		// The chain ends at a pinned certificate instead of a root, which
		// crypto/tls cannot express: VerifyConnection does it all, and unlike
		// VerifyPeerCertificate it also runs for a resumed session.
		InsecureSkipVerify: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyPinned(cs.PeerCertificates, pins, name)
		},
	}, nil
}

func verifyPinned(chain []*x509.Certificate, pins []Pin, name string) error {
	seen := make([]Pin, len(chain))
	roots, intermediates := x509.NewCertPool(), x509.NewCertPool()
	matched := false
	for i, cert := range chain {
		seen[i] = PinOf(cert)
		if slices.Contains(pins, seen[i]) {
			roots.AddCert(cert)
			matched = true
		} else {
			intermediates.AddCert(cert)
		}
	}
	if !matched {
		return &PinError{Seen: seen, Expected: slices.Clone(pins)}
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: intermediates,
		DNSName:       name,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("pki: server presented a pinned key, but its certificate does not hold: %w", err)
	}
	return nil
}
