package pki

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

const (
	// Of a failed renewal: doubled from the first to the second.
	minRetry = time.Minute
	maxRetry = time.Hour

	// How often Run looks at the clock: twenty times in the life of a
	// certificate, within these bounds.
	minPoll = 100 * time.Millisecond
	maxPoll = time.Hour

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
// A clock that is wrong, or is set while Run runs, makes a renewal early rather
// than late.
//
// Run returns the cause of ctx, or an error that matches [ErrExpired] when the
// certificate, and the RenewalGrace after it, has ended by the clock and by the
// time that has passed. The identity runs once at a time; a second Run returns an
// error.
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
		h := i.now()
		if err := i.wait(ctx, at, h); err != nil {
			return err
		}
		if i.over(h) {
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
			at = later(renewalTime(fresh), i.clock().Add(fresh.lifetime()/10))
			continue
		}
		wait := jitter(retry)
		if busy, ok := errors.AsType[*UnavailableError](err); ok {
			wait = max(wait, busy.RetryAfter)
		}
		// Close to the end there is no time for long waits.
		if left := h.end(0).Sub(i.clock()); left > 0 {
			wait = min(wait, left/5)
		}
		at = i.clock().Add(max(time.Second, wait))
		retry = min(2*retry, maxRetry)
	}
}

// wait waits until the time has come to renew h, or to give it up.
func (i *Identity) wait(ctx context.Context, at time.Time, h *holding) error {
	if end := h.end(i.RenewalGrace); end.After(i.clock()) {
		at = earlier(at, end)
	}
	poll := max(minPoll, min(maxPoll, h.lifetime()/20))
	return waitUntil(ctx, i.clock, at, poll)
}

// over reports whether h cannot be renewed any more. The clock alone does not
// decide: when it was set forward, less time has passed than it shows.
func (i *Identity) over(h *holding) bool {
	passed := h.taken.Add(time.Since(h.since))
	return h.ended(i.clock(), i.RenewalGrace) && h.ended(passed, i.RenewalGrace)
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
	fresh, err := newHolding(key, credential, h.token, i.clock())
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
	log := orDiscard(i.Logger)
	if err != nil {
		log.WarnContext(ctx, "pki: certificate not renewed", "agent", c.Agent, "not_after", c.NotAfter, "err", err)
		return
	}
	log.InfoContext(ctx, "pki: certificate renewed", "agent", c.Agent, "serial", c.Serial, "not_after", c.NotAfter)
	i.warnOfSkew(ctx)
}

func (i *Identity) warnOfSkew(ctx context.Context) {
	if skew := i.now().skew; skew.Abs() > maxSkew {
		orDiscard(i.Logger).WarnContext(ctx, "pki: the clocks of this machine and of the gateway differ; set both by NTP",
			"gateway_ahead_by", skew, "local_time", i.clock())
	}
}

// renewalTime is when h is due, by the clock of this machine: as its registrar
// asks, if that leaves it a quarter of its life, else by the rule of
// renewBefore; with jitter.
func renewalTime(h *holding) time.Time {
	c := h.credential
	before := renewBefore(h.certificate.Leaf)
	quarter := c.NotBefore.Add(h.lifetime() / 4)
	if c.RenewAfter.After(quarter) && c.RenewAfter.Before(c.NotAfter) {
		before = c.NotAfter.Sub(c.RenewAfter)
	}
	return h.end(0).Add(-jitter(before))
}

// jitter is d give or take ten percent.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
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
