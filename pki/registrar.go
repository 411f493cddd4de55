package pki

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"
	"unicode/utf8"
)

// Registrar admits agents. The [Authority] in the gateway's process is one, the
// [Client] in the agent's process is one that asks the former over HTTPS, and a
// product with its own PKI writes a third. Its methods may be called
// concurrently.
//
// A Registrar that says no returns a *[RegistrationError], which tells nothing
// about why. Any other error means that it could not decide: the same call may
// be repeated later, with the same token and the same key.
type Registrar interface {
	// Register exchanges a one-time token and a certificate signing request for
	// a certificate. Repeated with the same token and the same key it returns
	// the same certificate, until the token expires: a caller whose reply was
	// lost asks again.
	Register(ctx context.Context, r Registration) (*Credential, error)

	// Renew exchanges a valid certificate and a signing request with a new key
	// for a new certificate of the same agent. Repeated with the same two keys
	// it returns the same certificate.
	Renew(ctx context.Context, r Renewal) (*Credential, error)
}

// Registration is what an agent brings to enrol.
type Registration struct {
	Token Token  // required
	Agent string // the name asked for; empty takes the token's, or else one that the registrar makes
	CSR   []byte // PKCS #10, DER; only its public key is used. [Enroll] fills it in

	// Hostname and Metadata are what the agent says about itself, for people to
	// read. Nothing may be decided by them. Hostname has at most 253 bytes;
	// Metadata at most 32 entries of 64 bytes for the key and 256 for the value.
	Hostname string
	Metadata map[string]string

	// Source is where the request came from, for the log. [Handler] sets it;
	// an agent leaves it empty.
	Source string
}

// Renewal is what an agent brings to get its next certificate.
type Renewal struct {
	// Presented is the agent's current certificate: for a registrar behind
	// [Handler], the one that the TLS handshake has verified. The name of the
	// agent comes from it and from nowhere else.
	Presented *x509.Certificate
	CSR       []byte // as in Registration, with a key that was not used before

	// TLS is how the agent reaches the gateway as Presented. [Client] needs it,
	// [Identity.Run] sets it, a registrar in process ignores it.
	TLS *tls.Config

	Source string // as in Registration
}

// Credential is a certificate and what an agent must know to use it.
type Credential struct {
	Agent        string    `json:"agent"`
	Certificates [][]byte  `json:"certificates"` // DER, the agent's own first, then intermediates; no root
	Serial       string    `json:"serial"`       // of the first certificate; see [SerialOf]
	NotBefore    time.Time `json:"not_before"`
	NotAfter     time.Time `json:"not_after"`

	// RenewAfter is when the registrar would like to see the agent again. Zero
	// leaves it to the agent.
	RenewAfter time.Time `json:"renew_after,omitzero"`

	// Roots (DER) are what the gateway's server certificate must chain to. With
	// SystemRoots the roots of the agent's system are good as well, for a
	// gateway that holds a public certificate.
	Roots       [][]byte `json:"roots"`
	SystemRoots bool     `json:"system_roots,omitempty"`

	// ClockSkew is how far the registrar's clock was ahead of the caller's when
	// it answered. [Client] sets it; 0 when both agree or nothing is known.
	ClockSkew time.Duration `json:"-"`
}

// Leaf parses the agent's own certificate.
func (c *Credential) Leaf() (*x509.Certificate, error) {
	if len(c.Certificates) == 0 {
		return nil, fmt.Errorf("pki: credential of %q holds no certificate", c.Agent)
	}
	return x509.ParseCertificate(c.Certificates[0])
}

// pool is the set of roots that the gateway is verified by.
func (c *Credential) pool() (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if c.SystemRoots {
		system, err := x509.SystemCertPool()
		if err != nil {
			return nil, fmt.Errorf("pki: read the system's roots: %w", err)
		}
		pool = system
	}
	for _, der := range c.Roots {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("pki: root of the credential: %w", err)
		}
		pool.AddCert(root)
	}
	if len(c.Roots) == 0 && !c.SystemRoots {
		return nil, fmt.Errorf("pki: credential of %q names no roots to verify the gateway by", c.Agent)
	}
	return pool, nil
}

// Limits of what an agent may say about itself, in bytes and entries.
const (
	maxHostname      = 253
	maxMetadata      = 32
	maxMetadataKey   = 64
	maxMetadataValue = 256
)

// check holds both ends to the documented limits: the client, so that its user
// reads why, and the authority, which believes no client.
func (r *Registration) check() error {
	if r.Agent != "" && !isLabel(r.Agent) {
		return errName(r.Agent)
	}
	if len(r.Hostname) > maxHostname || !utf8.ValidString(r.Hostname) {
		return fmt.Errorf("hostname is longer than %d bytes or not UTF-8", maxHostname)
	}
	if len(r.Metadata) > maxMetadata {
		return fmt.Errorf("metadata has %d entries; at most %d", len(r.Metadata), maxMetadata)
	}
	for k, v := range r.Metadata {
		if k == "" || len(k) > maxMetadataKey || len(v) > maxMetadataValue || !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("metadata entry %.80q is empty, too long or not UTF-8", k)
		}
	}
	return nil
}
