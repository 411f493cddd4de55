package pki

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"
)

// Revocation says what to revoke: exactly one of Agent, Serial and Key.
type Revocation struct {
	// Agent revokes all certificates that the agent has now, all tokens bound
	// to its name, and the right of older unbound ones to take it. A new token
	// may give the name to another machine.
	Agent string
	// Serial revokes one certificate; see [SerialOf].
	Serial string
	// Key revokes every certificate for a public key, whoever has it, and the
	// key itself: it gets no certificate any more. The key need not be known.
	Key Pin

	Reason string // for people; kept in the store
}

func (r *Revocation) check() error {
	named := 0
	for _, is := range []bool{r.Agent != "", r.Serial != "", r.Key != Pin{}} {
		if is {
			named++
		}
	}
	if named != 1 {
		return errors.New("pki: revoke: name an agent, a serial number or a key, and one of them only")
	}
	return nil
}

// Revoke makes certificates void and returns those that were good until now.
// When it returns nil as the error, every handshake from now on refuses them, on
// every gateway with the same store, and a [Follower] tells each gateway to end
// their connections. A certificate that was revoked before keeps its date and
// reason. The error matches fs.ErrNotExist when there is no certificate with
// this serial; an agent without certificates is no error.
func (a *Authority) Revoke(ctx context.Context, r Revocation) ([]CertificateRecord, error) {
	return a.revoke(ctx, r, func(Tx, time.Time) error { return nil })
}

// revoke also does something else in the same step.
func (a *Authority) revoke(ctx context.Context, r Revocation, also func(tx Tx, now time.Time) error) ([]CertificateRecord, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	var revoked []CertificateRecord
	now := time.Now().UTC()
	err := a.Store.Update(ctx, func(tx Tx) error {
		revoked = nil
		certificates, err := r.targets(tx)
		if err != nil {
			return err
		}
		for _, c := range certificates {
			if !c.Revoked.IsZero() {
				continue
			}
			good := c.live(now)
			c.Revoked, c.Reason = now, r.Reason
			if err := errors.Join(tx.PutCertificate(c), tx.AddRevocation(c.revocation())); err != nil {
				return err
			}
			if good {
				revoked = append(revoked, c)
			}
		}
		return errors.Join(r.revokeAgent(tx, now), r.revokeKey(tx, now), r.burnGrants(tx), also(tx, now))
	})
	if err != nil {
		return nil, fmt.Errorf("pki: revoke: %w", err)
	}
	if a.Follower != nil {
		a.Follower.Wake()
	}
	for _, c := range revoked {
		a.log().InfoContext(ctx, "pki: certificate revoked", "name", c.Agent, "serial", c.Serial, "reason", r.Reason)
	}
	return revoked, nil
}

func (r *Revocation) targets(tx Tx) ([]CertificateRecord, error) {
	switch {
	case r.Agent != "":
		return tx.Certificates(r.Agent)
	case r.Serial != "":
		c, err := tx.Certificate(r.Serial)
		return []CertificateRecord{c}, err
	}
	all, err := tx.Certificates("")
	return slices.DeleteFunc(all, func(c CertificateRecord) bool { return !bytes.Equal(c.KeyHash, r.Key[:]) }), err
}

// revocation is the entry in the log for a revoked certificate.
func (c *CertificateRecord) revocation() RevocationRecord {
	return RevocationRecord{
		Serial: c.Serial, Agent: c.Agent, KeyHash: c.KeyHash,
		Reason: c.Reason, Time: c.Revoked, Forget: c.Forget,
	}
}

// revokeAgent keeps the tokens that could name the agent from bringing it back.
func (r *Revocation) revokeAgent(tx Tx, now time.Time) error {
	if r.Agent == "" {
		return nil
	}
	agent, err := knownAgent(tx, r.Agent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	agent.Revoked = now
	return tx.PutAgent(agent)
}

func (r *Revocation) revokeKey(tx Tx, now time.Time) error {
	if r.Key == (Pin{}) {
		return nil
	}
	_, err := tx.KeyRevocation(r.Key[:])
	if errors.Is(err, fs.ErrNotExist) {
		return tx.AddRevocation(RevocationRecord{KeyHash: r.Key[:], Reason: r.Reason, Time: now})
	}
	return err
}

// burnGrants makes the tokens void that could only be redeemed for what is
// revoked.
func (r *Revocation) burnGrants(tx Tx) error {
	if r.Serial != "" {
		return nil
	}
	grants, err := tx.Grants(r.Agent)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if g.Burned != "" || r.Agent == "" && !bytes.Equal(g.OnlyKey, r.Key[:]) {
			continue
		}
		g.Burned = "revoked with its agent or key: " + r.Reason
		if err := tx.PutGrant(g); err != nil {
			return err
		}
	}
	return nil
}

// Verify returns nil if cert is an agent's certificate that this authority
// issued, that is valid now, and that was neither revoked nor retired. The error
// matches [ErrRevoked], [ErrUnknownCertificate] or [ErrNoIdentity], or is that of
// crypto/x509, or says that the store did not answer: none of them lets the
// agent in.
func (a *Authority) Verify(ctx context.Context, cert *x509.Certificate) error {
	_, err := a.record(ctx, cert)
	return err
}

// record is Verify that returns what the store knows.
func (a *Authority) record(ctx context.Context, cert *x509.Certificate) (*CertificateRecord, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if err := a.verifyChain(cert, time.Now()); err != nil {
		return nil, err
	}
	var record CertificateRecord
	err := a.Store.View(ctx, func(tx Tx) (err error) {
		record, err = a.lookup(tx, cert)
		return err
	})
	switch {
	case errors.Is(err, ErrRevoked), errors.Is(err, ErrUnknownCertificate), errors.Is(err, ErrNoIdentity):
		return nil, err
	case err != nil:
		return nil, &storeError{err}
	}
	return &record, nil
}

// storeError is that of a store that did not answer.
type storeError struct{ error }

func (e *storeError) Unwrap() error { return e.error }

// verify judges the certificate of a connection. When the store does not answer,
// the follower does; there is no record then.
func (a *Authority) verify(ctx context.Context, cs tls.ConnectionState) (*CertificateRecord, error) {
	record, err := a.record(ctx, cs.PeerCertificates[0])
	if silent := (*storeError)(nil); errors.As(err, &silent) && a.Follower != nil {
		a.log().WarnContext(ctx, "pki: store does not answer; its follower judges", "err", silent.error)
		return nil, a.Follower.Check(cs)
	}
	return record, err
}

// verifyChain also holds the certificate to this trust domain.
func (a *Authority) verifyChain(cert *x509.Certificate, at time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots:       a.Pool(),
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		CurrentTime: at,
	})
	if err != nil {
		return fmt.Errorf("pki: %w", err)
	}
	domain, _, err := identityOf(cert)
	if err != nil {
		return err
	}
	if domain != a.domain() {
		return fmt.Errorf("%w: certificate is of trust domain %q, this is %q", ErrNoIdentity, domain, a.domain())
	}
	return nil
}

// storeTimeout bounds how long a TLS handshake waits for the store.
const storeTimeout = 5 * time.Second

// VerifyConnection refuses clients whose certificate [Authority.Verify] refuses.
// It lets a client without a certificate pass, who can register and nothing
// more. It is meant for the field of the same name in a tls.Config; the
// configurations of [Authority.ServerTLS] have it.
func (a *Authority) VerifyConnection(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	_, err := a.verify(ctx, cs)
	if err != nil {
		a.log().WarnContext(ctx, "pki: client certificate refused",
			"serial", SerialOf(cs.PeerCertificates[0]), "cause", err.Error())
	}
	return err
}
