package pki

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/url"
	"strings"
)

const (
	uriScheme      = "outgate"
	agentPath      = "/agent/"
	maxName        = 63  // RFC 1123, one label
	maxTrustDomain = 253 // RFC 1123, a whole name
)

// CheckName returns an error unless name can be an agent's name: a DNS label as
// in RFC 1123, that is 1 to 63 lower-case letters, digits and dashes, with no
// dash at either end.
func CheckName(name string) error {
	if !isLabel(name) {
		return fmt.Errorf("pki: %w", errName(name))
	}
	return nil
}

func errName(name string) error {
	return fmt.Errorf("agent name %.80q: use 1 to %d lower-case letters, digits and dashes, no dash at the ends", name, maxName)
}

func isLabel(s string) bool {
	if s == "" || len(s) > maxName || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

func checkTrustDomain(domain string) error {
	if len(domain) <= maxTrustDomain {
		ok := true
		for label := range strings.SplitSeq(domain, ".") {
			ok = ok && isLabel(label)
		}
		if ok {
			return nil
		}
	}
	return fmt.Errorf("pki: trust domain %.80q: use a lower-case domain name such as tunnels.example.com", domain)
}

// AgentName is the name of the agent at the other end of a connection: from the
// URI in the certificate that the TLS handshake has verified, and from nothing
// else. The error matches [ErrNoIdentity] when there is none.
//
// It trusts the verification: a server must verify its clients against the
// agents' authority alone, as [Authority.ServerTLS] does.
func AgentName(cs tls.ConnectionState) (string, error) {
	if len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return "", fmt.Errorf("%w: the connection has no verified client certificate", ErrNoIdentity)
	}
	_, name, err := identityOf(cs.VerifiedChains[0][0])
	return name, err
}

// identityOf reads the one URI that names an agent. Any other URI beside it, or
// another spelling of it, makes the certificate nobody's.
func identityOf(cert *x509.Certificate) (domain, name string, err error) {
	if len(cert.URIs) != 1 {
		return "", "", fmt.Errorf("%w: certificate has %d URI names instead of one", ErrNoIdentity, len(cert.URIs))
	}
	uri := cert.URIs[0]
	domain, name = uri.Host, strings.TrimPrefix(uri.Path, agentPath)
	if !isLabel(name) || checkTrustDomain(domain) != nil || uri.String() != agentURI(domain, name).String() {
		return "", "", fmt.Errorf("%w: URI name is not of the form %s://trust-domain%sname", ErrNoIdentity, uriScheme, agentPath)
	}
	return domain, name, nil
}

func agentURI(domain, name string) *url.URL {
	return &url.URL{Scheme: uriScheme, Host: domain, Path: agentPath + name}
}

// newUUID is a random UUID (RFC 9562, version 4), which is also an agent's name.
func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// SerialOf writes a certificate's serial number the way this package stores and
// logs it: lower-case hex, at least 32 digits.
func SerialOf(cert *x509.Certificate) string { return formatSerial(cert.SerialNumber) }

func formatSerial(n *big.Int) string { return fmt.Sprintf("%032x", n) }
