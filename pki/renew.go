package pki

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

const (
	// Of a failed renewal: doubled from the first to the second.
	minRetry = time.Minute
	maxRetry = time.Hour

	// maxWait is the longest timer. Timers stand still while a machine sleeps
	// and do not follow its clock, so the date is looked at again this often.
	maxWait = time.Hour

	renewTimeout = time.Minute
)

// ErrExpired says that an identity's certificate has ended without being
// renewed: the agent needs a new token.
var ErrExpired = errors.New("pki: certificate expired")

// Run renews the certificate as long as ctx lives: a third of its lifetime
// before its end, or 30 days if that is less, or when the registrar has asked to
// be seen, ten percent sooner or later so that a fleet does not come at once.
// Each certificate has a new key. A renewal that fails, even one that is
// refused, is tried again after one minute, then at growing intervals up to an
// hour; [Identity.Status] and the Logger tell.
//
// Run returns the cause of ctx, or an error that matches [ErrExpired] when the
// certificate has ended. The identity runs once at a time; a second Run returns
// an error.
func (i *Identity) Run(ctx context.Context, registrar Registrar) error {
	if !i.running.CompareAndSwap(false, true) {
		return errors.New("pki: identity is running already")
	}
	defer i.running.Store(false)
	defer i.schedule(time.Time{})

	retry := minRetry
	at := renewalTime(i.now())
	for {
		i.schedule(at)
		if err := waitUntil(ctx, earlier(at, i.now().credential.NotAfter)); err != nil {
			return err
		}
		h := i.now()
		if expired(h) {
			return fmt.Errorf("%w at %s: enrol agent %q with a new token", ErrExpired,
				h.credential.NotAfter.Format(time.RFC3339), h.credential.Agent)
		}
		err := i.renew(ctx, registrar, h)
		i.note(ctx, err)
		if err == nil {
			retry = minRetry
			// A certificate that is due at once, since its registrar is about to
			// end or the clock is wrong, must not become a loop.
			fresh := i.now()
			at = later(renewalTime(fresh), time.Now().Add(fresh.lifetime()/10))
			continue
		}
		wait := jitter(retry)
		if busy, ok := errors.AsType[*UnavailableError](err); ok {
			wait = max(wait, busy.RetryAfter)
		}
		// Close to the end there is no time for long waits.
		left := time.Until(h.credential.NotAfter)
		at = time.Now().Add(max(time.Second, min(wait, left/5)))
		retry = min(2*retry, maxRetry)
	}
}

func (i *Identity) renew(ctx context.Context, registrar Registrar, h *holding) error {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	key, err := pendingKey(ctx, i.storage, h)
	if err != nil {
		return err
	}
	csr, err := newCSR(key)
	if err != nil {
		return err
	}
	credential, err := registrar.Renew(ctx, Renewal{Presented: h.certificate.Leaf, CSR: csr, TLS: i.ClientTLS()})
	if err != nil {
		return err
	}
	fresh, err := newHolding(key, credential, h.token)
	if err == nil && credential.Agent != h.credential.Agent {
		err = fmt.Errorf("renewal for agent %q returned a certificate for %q", h.credential.Agent, credential.Agent)
	}
	if err == nil {
		err = fresh.save(ctx, i.storage)
	}
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.current = fresh
	i.mu.Unlock()
	return nil
}

func (i *Identity) schedule(at time.Time) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.renewAt = at
}

// note remembers and logs how a renewal went.
func (i *Identity) note(ctx context.Context, err error) {
	i.mu.Lock()
	i.failure = err
	c := i.current.credential
	i.mu.Unlock()
	log := i.Logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err != nil {
		log.WarnContext(ctx, "pki: certificate not renewed", "agent", c.Agent, "not_after", c.NotAfter, "err", err)
		return
	}
	log.InfoContext(ctx, "pki: certificate renewed", "agent", c.Agent, "serial", c.Serial, "not_after", c.NotAfter)
}

// renewalTime is when h is due: as its registrar asks, if that leaves it a
// quarter of its life, else by the rule of renewBefore; with jitter.
func renewalTime(h *holding) time.Time {
	c := h.credential
	before := renewBefore(h.certificate.Leaf)
	quarter := c.NotBefore.Add(h.lifetime() / 4)
	if c.RenewAfter.After(quarter) && c.RenewAfter.Before(c.NotAfter) {
		before = c.NotAfter.Sub(c.RenewAfter)
	}
	return c.NotAfter.Add(-jitter(before))
}

// jitter is d give or take ten percent.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// waitUntil waits for the wall clock to show t.
func waitUntil(ctx context.Context, t time.Time) error {
	t = t.Round(0) // without the monotonic reading, which stops while the machine sleeps
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := time.Until(t)
		if left <= 0 {
			return nil
		}
		timer := time.NewTimer(min(left, maxWait))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
