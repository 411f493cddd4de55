package pki

import (
	"context"
	"crypto/tls"
	"errors"
	"io/fs"
	"time"
)

// Identify is [AgentName] for a gateway with the authority at hand. It verifies
// the certificate as VerifyConnection does, and notes that it is in use: the
// token that it was got with is spent, and the certificate that it renewed is
// retired, so that a copy of that one lets nobody in any more.
//
// Call it after the handshake, when the peer has proven that it holds the key.
// It is meant for the field of the same name of a tunnel.Gateway.
func (a *Authority) Identify(cs tls.ConnectionState) (string, error) {
	name, err := AgentName(cs)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	record, err := a.verify(ctx, cs)
	if err != nil {
		return "", err
	}
	if record == nil || !record.Seen.IsZero() {
		return name, nil
	}
	var twin *CertificateRecord
	err = a.Store.Update(ctx, func(tx Tx) (err error) {
		twin, err = see(tx, record.Serial, time.Now().UTC())
		return err
	})
	if err != nil { // the next connection tries again
		a.log().WarnContext(ctx, "pki: note that a certificate is in use", "name", name, "serial", record.Serial, "err", err)
		return name, nil
	}
	a.log().InfoContext(ctx, "pki: certificate in use", "name", name, "serial", record.Serial, "retired", record.Previous)
	a.warnOfTwin(ctx, record.Serial, twin)
	return name, nil
}

// see notes the first use of a certificate. It returns another one, also in use,
// that renewed the same certificate: there are two machines with one identity.
func see(tx Tx, serial string, now time.Time) (twin *CertificateRecord, err error) {
	c, err := tx.Certificate(serial)
	if err != nil || !c.Seen.IsZero() {
		return nil, err
	}
	c.Seen = now
	if err := tx.PutCertificate(c); err != nil {
		return nil, err
	}
	if c.Previous == "" {
		return nil, spend(tx, c, now)
	}
	old, err := tx.Certificate(c.Previous)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if old.Retired.IsZero() {
		old.Retired = now
		if err := tx.PutCertificate(old); err != nil {
			return nil, err
		}
	}
	all, err := tx.Certificates(c.Agent)
	for _, other := range all {
		if other.Previous == c.Previous && other.Serial != c.Serial && !other.Seen.IsZero() {
			twin = &other
		}
	}
	return twin, err
}

// spend ends the token that the certificate was got with.
func spend(tx Tx, c CertificateRecord, now time.Time) error {
	g, err := tx.Grant(c.Grant)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case g.Serial != c.Serial || !g.Spent.IsZero():
		return nil
	}
	g.Spent = now
	return tx.PutGrant(g)
}

func (a *Authority) warnOfTwin(ctx context.Context, serial string, twin *CertificateRecord) {
	if twin != nil {
		a.log().WarnContext(ctx, "pki: two certificates that renewed the same one are in use; an agent's key was copied",
			"name", twin.Agent, "serial", serial, "other", twin.Serial)
	}
}
