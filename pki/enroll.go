package pki

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"slices"
	"time"
)

// Of an enrolment that found no gateway: doubled from the first to the second.
const (
	minEnrollRetry = time.Second
	maxEnrollRetry = 30 * time.Second
)

// Enroller gets an agent its identity. Set the fields before the first call and
// leave them alone after.
type Enroller struct {
	Storage   Storage   // of this agent alone; required
	Registrar Registrar // required; see [Failover] for several gateways

	// RenewalGrace is for how long after its end an identity may still be
	// renewed, so that a machine that was switched off for too long comes back
	// without a new token. The registrar has to allow it as well. 0 means not
	// at all.
	RenewalGrace time.Duration

	// Logger hears of attempts that failed and are repeated. The identity
	// inherits it. nil is silent.
	Logger *slog.Logger

	clock func() time.Time // nil means time.Now
}

// Enroll is the method of an [Enroller] with this storage and registrar.
func Enroll(ctx context.Context, storage Storage, registrar Registrar, r Registration) (*Identity, error) {
	return (&Enroller{Storage: storage, Registrar: registrar}).Enroll(ctx, r)
}

// Enroll returns the identity that the storage holds, or gets one: it makes a
// key, stores it, registers it, stores the certificate. Call it at every start.
// While no gateway can be reached, or none can decide, it tries again, at
// growing intervals up to half a minute, for as long as ctx lives. All other
// errors it returns at once: a refusal is a *[RegistrationError], a gateway with
// another key a *[PinError].
//
// When it returns an error, or the machine crashes at any point, calling it
// again with the same token goes on where it stopped; no token is lost.
//
// A token other than the one that the stored identity came from enrols anew, as
// after a revocation, and replaces the identity when that succeeds. An identity
// that has expired beyond RenewalGrace does the same. The CSR of r is made by
// Enroll.
func (e *Enroller) Enroll(ctx context.Context, r Registration) (*Identity, error) {
	stored, err := load(ctx, e.Storage)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	if stored != nil && (r.Token.IsZero() || r.Token.ID() == stored.token) {
		if r.Agent != "" && r.Agent != stored.credential.Agent {
			return nil, fmt.Errorf("pki: enrol: storage holds the identity of agent %q, not of %q; "+
				"give each agent a storage of its own, or enrol with a new token", stored.credential.Agent, r.Agent)
		}
		now := e.now()
		switch {
		case !stored.ended(now, 0):
			e.forgetPending(ctx, stored)
			return e.identity(stored), nil
		case !stored.ended(now, e.RenewalGrace):
			return e.revive(ctx, stored)
		}
	}
	switch {
	case !r.Token.IsZero():
	case stored == nil:
		return nil, errors.New("pki: enrol: storage holds no identity, and there is no token to get one")
	default:
		return nil, fmt.Errorf("%w at %s, and there is no token to get another; if %s is not the time, set the clock of this machine by NTP",
			ErrExpired, stored.credential.NotAfter.Format(time.RFC3339), e.now().UTC().Format(time.RFC3339))
	}
	key, err := pendingKey(ctx, e.Storage, stored)
	if err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	if r.CSR, err = newCSR(key); err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	var credential *Credential
	err = e.persist(ctx, func() (err error) {
		credential, err = e.Registrar.Register(ctx, r)
		return err
	})
	if err != nil {
		return nil, err // a registrar's errors speak for themselves
	}
	fresh, err := newHolding(key, credential, r.Token.ID(), e.now())
	if err == nil && r.Agent != "" && r.Agent != credential.Agent {
		err = fmt.Errorf("asked for agent %q, got %q", r.Agent, credential.Agent)
	}
	if err == nil {
		err = fresh.save(ctx, e.Storage)
	}
	if err != nil {
		return nil, fmt.Errorf("pki: enrol: %w", err)
	}
	identity := e.identity(fresh)
	identity.warnOfSkew(ctx)
	return identity, nil
}

func (e *Enroller) identity(h *holding) *Identity {
	i := newIdentity(e.Storage, h)
	i.Logger, i.RenewalGrace, i.clock = e.Logger, e.RenewalGrace, e.now
	return i
}

func (e *Enroller) now() time.Time {
	if e.clock == nil {
		return time.Now()
	}
	return e.clock()
}

// forgetPending removes the copy of a key that a crash has left behind, after the
// key had got its certificate and before the copy was removed. A failure does no
// harm: the next renewal replaces it.
func (e *Enroller) forgetPending(ctx context.Context, stored *holding) {
	der, err := e.Storage.Load(ctx, pendingBlob)
	if err != nil {
		return
	}
	if key, err := parseKey(der); err == nil && sameKey(key.Public(), stored.key.Public()) {
		_ = e.Storage.Delete(ctx, pendingBlob)
	}
}

// revive renews an identity that has ended.
func (e *Enroller) revive(ctx context.Context, stored *holding) (*Identity, error) {
	i := e.identity(stored)
	err := e.persist(ctx, func() error { return i.renew(ctx, e.Registrar, stored) })
	i.note(ctx, err)
	if err != nil {
		return nil, fmt.Errorf("%w at %s, and was not renewed: %w", ErrExpired, stored.credential.NotAfter.Format(time.RFC3339), err)
	}
	return i, nil
}

// persist repeats f until it succeeds, fails for good, or ctx ends.
func (e *Enroller) persist(ctx context.Context, f func() error) error {
	for delay := minEnrollRetry; ; delay = min(2*delay, maxEnrollRetry) {
		err := f()
		if err == nil || ctx.Err() != nil || !temporary(err) {
			return err
		}
		wait := jitter(delay)
		if busy, ok := errors.AsType[*UnavailableError](err); ok {
			wait = max(wait, busy.RetryAfter)
		}
		orDiscard(e.Logger).WarnContext(ctx, "pki: not enrolled yet", "err", err, "retry_in", wait)
		if stopped := sleep(ctx, wait); stopped != nil {
			return fmt.Errorf("pki: enrol: stopped (%w) after: %w", stopped, err)
		}
	}
}

// temporary reports whether time can mend the failure of a registrar: no gateway
// is there yet, it is busy, or its answer was cut off. A gateway that is not the
// right one does not become it.
func temporary(err error) bool {
	switch err := err.(type) { //nolint:errorlint // walks the tree of wrapped errors itself, since of several branches one is enough
	case *RegistrationError, *PinError, *tls.CertificateVerificationError:
		return false
	case *fs.PathError, *os.LinkError: // of a storage
		return false
	case *UnavailableError, net.Error:
		return true
	case interface{ Unwrap() []error }:
		return slices.ContainsFunc(err.Unwrap(), temporary)
	case interface{ Unwrap() error }:
		return temporary(err.Unwrap())
	}
	return err == io.EOF || err == io.ErrUnexpectedEOF
}

// pendingKey returns the key of an attempt that was not finished, or a new one.
// Either is on disk before the registrar sees it, so that a certificate whose
// arrival a crash prevents can be asked for again.
func pendingKey(ctx context.Context, storage Storage, current *holding) (crypto.Signer, error) {
	der, err := storage.Load(ctx, pendingBlob)
	if err == nil {
		// A key that cannot be read is no loss: no certificate was seen for it.
		key, err := parseKey(der)
		if err == nil && (current == nil || !sameKey(key.Public(), current.key.Public())) {
			return key, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return key, storage.Save(ctx, pendingBlob, der)
}

func orDiscard(log *slog.Logger) *slog.Logger {
	if log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return log
}
