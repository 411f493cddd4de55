package pki

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

const (
	tokenIDBytes     = 8
	tokenSecretBytes = 32
)

// secretEncoding refuses the spellings that would decode to the same secret.
var secretEncoding = base64.RawURLEncoding.Strict()

// Token is a one-time registration token. Written out it is "id.secret": the id
// is no secret and names the token in logs and lists, the secret is 32 random
// bytes in base64url. [Authority.Grant] makes one, [ParseToken] reads one.
//
// A Token hides its secret: fmt, slog and JSON print "id.[redacted]", also when
// the token is a field of something else. [Token.Reveal] is the only way out.
// The zero Token is no token.
type Token struct {
	id     string
	secret *string // a pointer, since fmt prints the private strings of an outer struct
}

// ParseToken reads a token as [Token.Reveal] writes it; spaces around it are
// ignored, since tokens come from files and clipboards. The error never repeats
// the input.
func ParseToken(s string) (Token, error) {
	id, secret, found := strings.Cut(strings.TrimSpace(s), ".")
	if !found {
		return Token{}, errors.New("pki: token: not of the form id.secret")
	}
	if len(id) != hex.EncodedLen(tokenIDBytes) || strings.Trim(id, "0123456789abcdef") != "" {
		return Token{}, fmt.Errorf("pki: token: the id before the dot must be %d lower-case hex digits", hex.EncodedLen(tokenIDBytes))
	}
	if len(secret) != secretEncoding.EncodedLen(tokenSecretBytes) || strings.ContainsAny(secret, "\r\n") {
		return Token{}, errors.New("pki: token: the secret after the dot has the wrong length; was it cut while copying?")
	}
	if _, err := secretEncoding.DecodeString(secret); err != nil {
		return Token{}, errors.New("pki: token: the secret after the dot is not base64url")
	}
	return Token{id: id, secret: &secret}, nil
}

func newToken() Token {
	var raw [tokenIDBytes + tokenSecretBytes]byte
	rand.Read(raw[:]) // never fails (crypto/rand)
	secret := secretEncoding.EncodeToString(raw[tokenIDBytes:])
	return Token{id: hex.EncodeToString(raw[:tokenIDBytes]), secret: &secret}
}

// ID is the public half. It is empty for the zero Token.
func (t Token) ID() string { return t.id }

// IsZero reports whether t is the zero Token.
func (t Token) IsZero() bool { return t.secret == nil }

// Reveal writes the token out, secret included. It returns the empty string for
// the zero Token.
func (t Token) Reveal() string {
	if t.IsZero() {
		return ""
	}
	return t.id + "." + *t.secret
}

// hash is what the store keeps of a secret.
func (t Token) hash() [sha256.Size]byte {
	if t.IsZero() {
		return sha256.Sum256(nil)
	}
	return sha256.Sum256([]byte(*t.secret))
}

// String hides the secret.
func (t Token) String() string {
	if t.IsZero() {
		return "[no token]"
	}
	return t.id + ".[redacted]"
}

// GoString hides the secret from %#v.
func (t Token) GoString() string { return "pki.Token(" + t.String() + ")" }

// LogValue hides the secret from slog.
func (t Token) LogValue() slog.Value { return slog.StringValue(t.String()) }

// MarshalText hides the secret from encoders, so that what it writes cannot be
// read back. Use Reveal to store or send a token.
func (t Token) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText reads a token as [ParseToken] does; for configuration files.
func (t *Token) UnmarshalText(text []byte) error {
	parsed, err := ParseToken(string(text))
	if err != nil {
		return err
	}
	*t = parsed
	return nil
}
