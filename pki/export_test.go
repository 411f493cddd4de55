package pki

import (
	"crypto/tls"
	"time"
)

// SetClock replaces the wall clock that the enroller and its identities go by.
func (e *Enroller) SetClock(clock func() time.Time) { e.clock = clock }

// Temporary reports whether Enroll tries again after an error of its registrar.
func Temporary(err error) bool { return temporary(err) }

// PinnedTLS is what a Client with pins verifies a gateway by.
func PinnedTLS(pins []Pin, name string) (*tls.Config, error) { return pinnedTLS(pins, name) }
