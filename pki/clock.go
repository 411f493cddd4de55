package pki

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"
)

// maxSkew is how wrong a clock may be before somebody should look at it.
const maxSkew = time.Minute

// skewOf is how far the registrar's clock is ahead of now. What the registrar
// says of it counts if the certificate was good at that time. If it says nothing,
// the skew shows when the certificate begins in the future.
func skewOf(c *Credential, now time.Time) time.Duration {
	there := now.Add(c.ClockSkew)
	if c.ClockSkew != 0 && !there.Before(c.NotBefore) && there.Before(c.NotAfter) {
		return c.ClockSkew
	}
	return max(0, c.NotBefore.Sub(now))
}

// clockSkew reads the Date of an answer (RFC 9110, 6.6.1) that was asked for and
// got at these times. It is 0 within the precision of such a comparison.
func clockSkew(date string, asked, got time.Time) time.Duration {
	remote, err := time.Parse(time.RFC1123, date)
	if err != nil {
		return 0
	}
	// The date was cut to a second and set somewhere between the two.
	switch earliest, latest := remote, remote.Add(time.Second); {
	case earliest.After(got):
		return earliest.Sub(got)
	case latest.Before(asked):
		return latest.Sub(asked)
	}
	return 0
}

// explainClock adds what to do to an error that a wrong clock may have caused.
func explainClock(err error) error {
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return fmt.Errorf("%w; if %s is not the time, set the clock of this machine by NTP", err, time.Now().UTC().Format(time.RFC3339))
	}
	return err
}

// sleep returns the cause of ctx if that ends first.
func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// waitUntil waits until the clock shows t, or until as much time has passed as
// was missing at first, whichever is sooner: timers stand still while a machine
// sleeps, and clocks are set. It looks at the clock at least once in poll.
func waitUntil(ctx context.Context, clock func() time.Time, t time.Time, poll time.Duration) error {
	t = t.Round(0) // without the monotonic reading
	begin, span := time.Now(), t.Sub(clock().Round(0))
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		left := min(span-time.Since(begin), t.Sub(clock().Round(0)))
		if left <= 0 {
			return nil
		}
		if err := sleep(ctx, min(left, poll)); err != nil {
			return err
		}
	}
}
