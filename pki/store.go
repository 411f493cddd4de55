package pki

import (
	"context"
	"maps"
	"slices"
	"time"
)

// Store keeps what an [Authority] must not forget: grants, the certificates it
// issued, and which of them are revoked. [MemoryStore] forgets with its process,
// [FileStore] serves one gateway; several gateways share a database.
//
// # Contract
//
// Atomicity. What Update's function puts becomes visible and durable together
// or not at all. Updates are serializable: their effect is as if they had run
// one after the other. A view sees one state.
//
// Durability. When Update returns nil, what was put survives a crash of the
// process and of the machine. When it returns an error, it may or may not have
// been stored, but never in part; callers repeat such an update.
//
// Read your writes. Inside Update, reads see what was put before. After Update
// returned, every later View, through any handle of the store, sees it.
//
// Functions may run more than once, for a store that retries, and they may run
// while others wait: they have no side effect but through the Tx and their own
// variables, do not call the store, do not block, and do not keep the Tx. If the
// function returns an error nothing is stored and the same error is returned.
//
// Forgetting. A store may, and in time should, drop a record whose Forget time
// has passed. It drops nothing else.
//
// All methods may be called concurrently. A store that cannot be reached returns
// an error; the authority then refuses, for it cannot know.
//
// Package pkitest holds the suite that every implementation passes.
type Store interface {
	// View runs f on a state that does not change. Puts fail.
	View(ctx context.Context, f func(Tx) error) error
	// Update runs f and stores what it put.
	Update(ctx context.Context, f func(Tx) error) error
}

// Tx is one look at a [Store], or one change of it. Records that it returns and
// takes are copies. A record that is not there is an error that matches
// fs.ErrNotExist.
type Tx interface {
	Grant(id string) (GrantRecord, error)
	Grants() ([]GrantRecord, error) // all, by creation time
	PutGrant(g GrantRecord) error   // adds it, or replaces the one with its ID

	Certificate(serial string) (CertificateRecord, error)
	// Certificates returns the agent's certificates by creation time, or those
	// of every agent if agent is empty.
	Certificates(agent string) ([]CertificateRecord, error)
	PutCertificate(c CertificateRecord) error // adds it, or replaces the one with its Serial
}

// GrantRecord is a token as a [Store] keeps it. Of the secret there is only the
// hash.
type GrantRecord struct {
	ID           string            `json:"id"`
	SecretHash   []byte            `json:"secret_hash"`     // SHA-256
	Agent        string            `json:"agent,omitempty"` // the only name it may take; empty: unbound
	Labels       map[string]string `json:"labels,omitempty"`
	Created      time.Time         `json:"created"`
	Expires      time.Time         `json:"expires"`
	WrongSecrets int               `json:"wrong_secrets,omitempty"`
	Burned       string            `json:"burned,omitempty"` // why it is void; empty: it is not

	// Set together when the token was redeemed.
	KeyHash []byte `json:"key_hash,omitempty"` // SHA-256 of the public key it went to
	Serial  string `json:"serial,omitempty"`   // of the certificate it became

	Forget time.Time `json:"forget"`
}

// CertificateRecord is a certificate that was issued to an agent.
type CertificateRecord struct {
	Serial   string            `json:"serial"`
	Agent    string            `json:"agent"`
	KeyHash  []byte            `json:"key_hash"`           // SHA-256 of the public key
	Raw      []byte            `json:"raw"`                // DER
	Previous string            `json:"previous,omitempty"` // serial of the one it renewed; empty: enrolled
	Grant    string            `json:"grant,omitempty"`    // ID of the token that the agent enrolled with
	Labels   map[string]string `json:"labels,omitempty"`   // of that grant
	Hostname string            `json:"hostname,omitempty"` // as the agent said
	Metadata map[string]string `json:"metadata,omitempty"` // as the agent said
	Created  time.Time         `json:"created"`
	NotAfter time.Time         `json:"not_after"`
	Revoked  time.Time         `json:"revoked,omitzero"`
	Reason   string            `json:"reason,omitempty"` // of the revocation

	Forget time.Time `json:"forget"`
}

// live reports whether the certificate is good at now.
func (c *CertificateRecord) live(now time.Time) bool {
	return c.Revoked.IsZero() && now.Before(c.NotAfter)
}

func (g GrantRecord) clone() GrantRecord {
	g.SecretHash = slices.Clone(g.SecretHash)
	g.Labels = maps.Clone(g.Labels)
	g.KeyHash = slices.Clone(g.KeyHash)
	return g
}

func (c CertificateRecord) clone() CertificateRecord {
	c.KeyHash = slices.Clone(c.KeyHash)
	c.Raw = slices.Clone(c.Raw)
	c.Labels = maps.Clone(c.Labels)
	c.Metadata = maps.Clone(c.Metadata)
	return c
}
