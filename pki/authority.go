package pki

import (
	"context"
	"crypto"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"sync"
	"time"
)

// Authority admits agents: it mints tokens, turns them into certificates, renews
// and revokes those. It is the [Registrar] of a gateway. Set the fields before
// the first call and leave them alone after; all methods may be called
// concurrently.
//
// An agent's certificate is good for TLS client authentication and nothing
// else. It names the agent in a URI, outgate://trust-domain/agent/name, and for
// people in the common name. [AgentName] reads it.
type Authority struct {
	// Signer is the authority's key and Certificate its certificate, which must
	// be a CA's: see [LoadOrCreateCA]. A signer may be a KMS; it is asked once
	// for each certificate. Both are required.
	Signer      crypto.Signer
	Certificate *x509.Certificate

	// Chain is what stands above Certificate: the certificate of its issuer
	// first, the root last. Empty means that Certificate is the root. Agents are
	// told to trust the root and present the rest; gateways let in what
	// Certificate has signed, and not its siblings.
	Chain []*x509.Certificate

	// Trusted are other authorities whose agents are let in and which agents are
	// told to trust, for as long as they last: the one before this, and the one
	// to come. See "Changing the authority" in the package's documentation.
	Trusted []*x509.Certificate

	// Store remembers tokens and certificates. Required.
	Store Store

	// Follower judges connections while the store does not answer, until it is
	// stale itself; it may then let in a certificate that the store has never
	// known. It hears of a revocation here at once. nil refuses everybody while
	// the store does not answer. The caller runs it.
	Follower *Follower

	// TrustDomain is the part of agents' identities that tells this fleet from
	// another. Agents of one trust domain are strangers in another, so it must
	// not change. Empty means "outgate".
	TrustDomain string

	// Lifetime of certificates; 0 means 90 days. None outlives the authority's.
	Lifetime time.Duration

	// MaxGrantTTL is the longest life of a token; 0 means TTLAutomation.
	MaxGrantTTL time.Duration

	// RenewalGrace is how long after its end a certificate may still be renewed;
	// 0 means not at all, and 30 days is the most. Agents that come by a
	// [Handler] also need RenewExpired of its configuration.
	RenewalGrace time.Duration

	// AllowRSA accepts RSA keys of agents, of 2048 to 8192 bits, beside those on
	// P-256 and P-384 and Ed25519.
	AllowRSA bool

	// SystemRoots tells agents that the gateway's own certificate may also be
	// one that their system trusts, as when a public CA has issued it.
	SystemRoots bool

	// Logger hears of every certificate issued, refused and revoked. It alone
	// hears why a request was refused. nil is silent.
	Logger *slog.Logger

	once sync.Once
	err  error
}

var _ Registrar = (*Authority)(nil)

const (
	defaultTrustDomain = "outgate"
	defaultLifetime    = 90 * 24 * time.Hour

	// remember is how long records outlive what they describe, for people who
	// ask what happened.
	remember = 30 * 24 * time.Hour
)

// check looks the configuration over, once.
func (a *Authority) check() error {
	a.once.Do(func() { a.err = a.validate() })
	return a.err
}

func (a *Authority) validate() error {
	switch {
	case a.Signer == nil || a.Certificate == nil:
		return errors.New("pki: Authority needs a Signer and a Certificate; LoadOrCreateCA makes them")
	case a.Store == nil:
		return errors.New("pki: Authority needs a Store, such as that of OpenFileStore")
	case !a.Certificate.IsCA || !a.Certificate.BasicConstraintsValid:
		return errors.New("pki: Authority: the certificate is not that of a CA")
	case a.Certificate.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("pki: Authority: the certificate is not for signing certificates")
	case a.Lifetime < 0 || a.MaxGrantTTL < 0 || a.RenewalGrace < 0:
		return errors.New("pki: Authority: negative duration")
	case a.RenewalGrace > remember:
		return fmt.Errorf("pki: Authority: RenewalGrace %s is more than %s", a.RenewalGrace, remember)
	case a.Lifetime > 0 && a.Lifetime < 10*time.Second:
		return fmt.Errorf("pki: Authority: Lifetime %s is too short to renew in", a.Lifetime)
	}
	if !sameKey(a.Certificate.PublicKey, a.Signer.Public()) {
		return errors.New("pki: Authority: the certificate is not for the signer's key")
	}
	if err := a.checkChain(); err != nil {
		return err
	}
	return checkTrustDomain(a.domain())
}

func (a *Authority) domain() string {
	if a.TrustDomain == "" {
		return defaultTrustDomain
	}
	return a.TrustDomain
}

func (a *Authority) lifetime() time.Duration {
	if a.Lifetime == 0 {
		return defaultLifetime
	}
	return a.Lifetime
}

func (a *Authority) log() *slog.Logger {
	if a.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return a.Logger
}

// Register redeems a token. See [Registrar] for the contract and [Grant] for
// the rules.
func (a *Authority) Register(ctx context.Context, r Registration) (*Credential, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	log := a.log().With("token", r.Token.ID(), "agent", clip(r.Agent), "source", r.Source)
	record, err := a.redeem(ctx, r)
	if cause := refusal(""); errors.As(err, &cause) {
		log.WarnContext(ctx, "pki: registration refused", "cause", string(cause), "detail", err.Error())
		return nil, &RegistrationError{}
	}
	if err != nil {
		return nil, fmt.Errorf("pki: register: %w", err)
	}
	log.InfoContext(ctx, "pki: agent registered", "name", record.Agent, "serial", record.Serial,
		"key", hex.EncodeToString(record.KeyHash), "not_after", record.NotAfter)
	return a.credential(record)
}

// Renew issues the next certificate for the agent that r.Presented names. See
// [Registrar] for the contract. The certificate must be valid, known to the
// store and not revoked; whether the caller holds its key is for TLS to prove.
// The new key must never have been the agent's before.
func (a *Authority) Renew(ctx context.Context, r Renewal) (*Credential, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	log := a.log().With("source", r.Source)
	if r.Presented != nil {
		log = log.With("presented", SerialOf(r.Presented))
	}
	record, err := a.renew(ctx, r)
	if cause := refusal(""); errors.As(err, &cause) {
		log.WarnContext(ctx, "pki: renewal refused", "cause", string(cause), "detail", err.Error())
		return nil, &RegistrationError{Renewal: true}
	}
	if err != nil {
		return nil, fmt.Errorf("pki: renew: %w", err)
	}
	log.InfoContext(ctx, "pki: certificate renewed", "name", record.Agent, "serial", record.Serial,
		"key", hex.EncodeToString(record.KeyHash), "not_after", record.NotAfter)
	return a.credential(record)
}

// clip keeps what a stranger sent from filling the log.
func clip(s string) string { return s[:min(len(s), maxName)] }

// requestedKey is the key of a signing request, and its hash.
func (a *Authority) requestedKey(csr []byte) (crypto.PublicKey, []byte, error) {
	key, err := publicKey(csr, a.AllowRSA)
	if err != nil {
		return nil, nil, refuse(causeBadCSR, err)
	}
	hash, err := keyHash(key)
	if err != nil {
		return nil, nil, refuse(causeBadCSR, err)
	}
	for _, authority := range a.authorities() {
		if sameKey(authority.PublicKey, key) {
			return nil, nil, refuse(causeBadCSR, errors.New("key is that of an authority"))
		}
	}
	return key, hash, nil
}

func newCertificateRecord(cert *x509.Certificate, name string, keyHash []byte, now time.Time) CertificateRecord {
	return CertificateRecord{
		Serial:   SerialOf(cert),
		Agent:    name,
		KeyHash:  keyHash,
		Raw:      cert.Raw,
		Created:  now.UTC(),
		NotAfter: cert.NotAfter,
		Forget:   cert.NotAfter.Add(remember),
	}
}

func (a *Authority) credential(record *CertificateRecord) (*Credential, error) {
	cert, err := x509.ParseCertificate(record.Raw)
	if err != nil {
		return nil, fmt.Errorf("pki: certificate %s in the store: %w", record.Serial, err)
	}
	return &Credential{
		Agent:        record.Agent,
		Certificates: append([][]byte{record.Raw}, a.intermediates()...),
		Serial:       record.Serial,
		NotBefore:    cert.NotBefore,
		NotAfter:     cert.NotAfter,
		RenewAfter:   cert.NotAfter.Add(-renewBefore(cert)),
		Roots:        a.roots(time.Now()),
		SystemRoots:  a.SystemRoots,
	}, nil
}

// lookup finds the record of a certificate that chains to this authority.
func (a *Authority) lookup(tx Tx, cert *x509.Certificate) (CertificateRecord, error) {
	record, err := tx.Certificate(SerialOf(cert))
	if errors.Is(err, fs.ErrNotExist) {
		return record, fmt.Errorf("%w: serial %s", ErrUnknownCertificate, SerialOf(cert))
	}
	if err != nil {
		return record, err
	}
	_, name, err := identityOf(cert)
	if err != nil {
		return record, err
	}
	if record.Agent != name {
		return record, fmt.Errorf("%w: serial %s was issued to another agent", ErrUnknownCertificate, record.Serial)
	}
	if !record.Revoked.IsZero() {
		return record, fmt.Errorf("%w: %s, serial %s: %s", ErrRevoked, record.Agent, record.Serial, record.Reason)
	}
	if !record.Retired.IsZero() {
		return record, fmt.Errorf("%w: %s, serial %s: retired at %s, when the one that renewed it was first used",
			ErrRevoked, record.Agent, record.Serial, record.Retired.Format(time.RFC3339))
	}
	switch revoked, err := tx.KeyRevocation(record.KeyHash); {
	case err == nil:
		return record, fmt.Errorf("%w: %s, serial %s, by its key: %s", ErrRevoked, record.Agent, record.Serial, revoked.Reason)
	case !errors.Is(err, fs.ErrNotExist):
		return record, err
	}
	return record, nil
}
