package pki

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

// maxSuccessors bounds the certificates that one certificate can be renewed to.
// One is the rule; an agent that was restored from a backup needs a second, a
// thief would like any number.
const maxSuccessors = 5

// succession is one attempt to renew.
type succession struct {
	presented *x509.Certificate
	name      string
	keyHash   []byte
	now       time.Time
}

func (a *Authority) renew(ctx context.Context, r Renewal) (*CertificateRecord, error) {
	if r.Presented == nil {
		return nil, refuse(causeBadCertificate, errors.New("none presented"))
	}
	if err := a.verifyChain(r.Presented, a.judgedAt(r.Presented)); err != nil {
		return nil, refuse(causeBadCertificate, err)
	}
	_, name, err := identityOf(r.Presented)
	if err != nil {
		return nil, refuse(causeBadCertificate, err)
	}
	key, hash, err := a.requestedKey(r.CSR)
	if err != nil {
		return nil, err
	}
	try := succession{presented: r.Presented, name: name, keyHash: hash, now: time.Now()}

	// As in redeem: a first look that saves the signature, then the step that
	// counts.
	var current CertificateRecord
	var existing, twin *CertificateRecord
	var verdict error
	err = a.Store.View(ctx, func(tx Tx) (err error) {
		current, existing, verdict, err = try.judge(a, tx)
		return err
	})
	if err == nil {
		err = verdict
	}
	if err != nil || existing != nil {
		return existing, err
	}
	cert, err := a.sign(a.agentTemplate(name, try.now), key)
	if err != nil {
		return nil, err
	}
	fresh := newCertificateRecord(cert, name, hash, try.now)
	err = a.Store.Update(ctx, func(tx Tx) (err error) {
		current, existing, verdict, err = try.judge(a, tx)
		if err != nil || verdict != nil || existing != nil {
			return err
		}
		if twin, err = see(tx, current.Serial, try.now.UTC()); err != nil {
			return err
		}
		fresh.Previous = current.Serial
		fresh.Grant = current.Grant
		return tx.PutCertificate(fresh)
	})
	if err == nil {
		err = verdict
	}
	if err != nil || existing != nil {
		return existing, err
	}
	a.warnOfTwin(ctx, current.Serial, twin)
	return &fresh, nil
}

// judgedAt is now, or the end of a certificate that has not been over for longer
// than the grace.
func (a *Authority) judgedAt(cert *x509.Certificate) time.Time {
	now := time.Now()
	if now.After(cert.NotAfter) && now.Sub(cert.NotAfter) <= a.RenewalGrace {
		return cert.NotAfter
	}
	return now
}

// judge says whether the presented certificate may be renewed to the key.
// existing is the certificate that an earlier attempt with both has led to.
func (try *succession) judge(a *Authority, tx Tx) (current CertificateRecord, existing *CertificateRecord, verdict, err error) {
	current, err = a.lookup(tx, try.presented)
	if errors.Is(err, ErrUnknownCertificate) || errors.Is(err, ErrRevoked) {
		return current, nil, refuse(causeBadCertificate, err), nil
	}
	if err != nil {
		return current, nil, nil, err
	}
	switch revoked, err := tx.KeyRevocation(try.keyHash); {
	case err == nil:
		return current, nil, refuse(causeRevokedKey, errors.New(revoked.Reason)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return current, nil, nil, err
	}
	all, err := tx.Certificates(try.name)
	if err != nil {
		return current, nil, nil, err
	}
	successors := 0
	for _, c := range all {
		follows := c.Previous == current.Serial
		switch {
		case !bytes.Equal(c.KeyHash, try.keyHash):
		case follows && c.live(try.now):
			return current, &c, nil, nil
		default:
			return current, nil, refuse(causeKeyReused, fmt.Errorf("key of certificate %s", c.Serial)), nil
		}
		if follows {
			successors++
		}
	}
	if successors >= maxSuccessors {
		return current, nil, refuse(causeTooMany, fmt.Errorf("certificate has %d successors", successors)), nil
	}
	return current, nil, nil, nil
}
