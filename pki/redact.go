package pki

import (
	"fmt"
	"io"
)

// Values that hold keys print as what they are and never as what they hold,
// whatever the verb: a wrong one makes fmt print what is behind a pointer.

// Format prints the agent, the serial number and the end of the certificate.
func (i *Identity) Format(f fmt.State, _ rune) {
	s := i.Status()
	fmt.Fprintf(f, "pki.Identity(%s, serial %s, until %s)", s.Agent, s.Serial, s.NotAfter.UTC())
}

// Format prints no blob: they are keys.
func (s *MemoryStorage) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "pki.MemoryStorage") }

// Format prints the trust domain and no key.
func (a *Authority) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "pki.Authority(%s)", a.domain()) }

// MarshalText keeps encoders from the key, as Format does fmt.
func (a *Authority) MarshalText() ([]byte, error) { return fmt.Append(nil, a), nil }
