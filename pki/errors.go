package pki

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// RegistrationError says that a registrar refused. It says the same for every
// reason, on purpose: whoever guesses tokens must not learn how close he was.
// The log of the [Authority] names the reason.
//
// To try again as before is useless; the agent needs a new token.
type RegistrationError struct {
	Renewal bool // a renewal was refused, not a registration
}

func (e *RegistrationError) Error() string {
	if e.Renewal {
		return "pki: renewal refused; the gateway's log says why"
	}
	return "pki: registration refused; the gateway's log says why"
}

// Is matches any other RegistrationError of the same kind.
func (e *RegistrationError) Is(target error) bool {
	t, ok := target.(*RegistrationError)
	return ok && *t == *e
}

// UnavailableError says that the gateway answered but could not decide now: it
// is overloaded, limits the rate, or cannot reach its store.
type UnavailableError struct {
	Status     int           // of HTTP
	RetryAfter time.Duration // what the gateway asked for; 0 when it did not say
}

func (e *UnavailableError) Error() string {
	s := fmt.Sprintf("pki: gateway cannot answer now (HTTP %d)", e.Status)
	if e.RetryAfter > 0 {
		s += fmt.Sprintf("; it asks to come back in %s", e.RetryAfter)
	}
	return s
}

// Temporary is always true.
func (e *UnavailableError) Temporary() bool { return true }

// PinError says that no certificate of the server matched a pin. Either the pin
// is wrong or someone stands in between; nothing was sent.
type PinError struct {
	Seen     []Pin // of the certificates that the server presented, its own first
	Expected []Pin
}

func (e *PinError) Error() string {
	return fmt.Sprintf("pki: SPKI pin mismatch: server presented %s, expected %s; "+
		"compare with the pin that the gateway itself prints", pinList(e.Seen), pinList(e.Expected))
}

func pinList(pins []Pin) string {
	if len(pins) == 0 {
		return "no certificate"
	}
	s := make([]string, len(pins))
	for i, p := range pins {
		s[i] = p.String()
	}
	return strings.Join(s, " or ")
}

var (
	// ErrRevoked says that a certificate was revoked, or retired after one that
	// renewed it was used.
	ErrRevoked = errors.New("pki: certificate revoked")

	// ErrUnknownCertificate says that a certificate is not, or no longer, in
	// the authority's store, although the authority's key signed it.
	ErrUnknownCertificate = errors.New("pki: certificate not in the authority's store")

	// ErrNoIdentity says that a connection or a certificate carries no agent's
	// name.
	ErrNoIdentity = errors.New("pki: no agent identity")

	// ErrLocked says that another process holds a directory or a file.
	ErrLocked = errors.New("pki: in use by another process")
)
