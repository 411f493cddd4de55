package pki

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Store keeps what an [Authority] must not forget: agents, grants, the
// certificates it issued, and what is revoked. [MemoryStore] forgets with its process,
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
// Numbers. Revocations are numbered by AddRevocation: each number is larger than
// all that a view has ever shown. Who has seen number n will never see a smaller
// one appear, so that he misses nothing by asking for what is above n.
//
// Forgetting. A store may, and in time should, drop a record whose Forget time
// has passed. It drops nothing else, and never the last revocation, whose number
// it needs.
//
// All methods may be called concurrently. A store that cannot be reached returns
// an error; the authority then refuses, for it cannot know.
//
// Package pkitest holds the suites that every implementation passes.
type Store interface {
	// View runs f on a state that does not change. Puts fail.
	View(ctx context.Context, f func(Tx) error) error
	// Update runs f and stores what it put.
	Update(ctx context.Context, f func(Tx) error) error
}

// Tx is one look at a [Store], or one change of it. Records that it returns and
// takes are copies. A record that is not there is an error that matches
// fs.ErrNotExist. A put adds a record, or replaces the one with its key.
type Tx interface {
	Agent(name string) (AgentRecord, error)
	Agents() ([]AgentRecord, error) // all, by name
	PutAgent(a AgentRecord) error   // its key is Name

	Grant(id string) (GrantRecord, error)
	// Grants returns the grants that are bound to the agent by creation time,
	// or all grants if agent is empty.
	Grants(agent string) ([]GrantRecord, error)
	PutGrant(g GrantRecord) error // its key is ID

	Certificate(serial string) (CertificateRecord, error)
	// Certificates returns the agent's certificates by creation time, or those
	// of every agent if agent is empty.
	Certificates(agent string) ([]CertificateRecord, error)
	PutCertificate(c CertificateRecord) error // its key is Serial; Agent never changes

	// Revocations returns those numbered above after, by number.
	Revocations(after uint64) ([]RevocationRecord, error)
	// KeyRevocation finds the revocation of a public key as such.
	KeyRevocation(keyHash []byte) (RevocationRecord, error)
	// AddRevocation keeps r under the next number, whatever r.Number is.
	AddRevocation(r RevocationRecord) error
}

// AgentRecord is an agent that the authority knows: one that has enrolled, or is
// expected to. See [Authority.PutAgent].
type AgentRecord struct {
	Name    string            `json:"name"`
	Labels  map[string]string `json:"labels,omitempty"` // for policies
	Created time.Time         `json:"created"`

	// As the agent said when it last enrolled, at Enrolled. Zero: it never did.
	Hostname string            `json:"hostname,omitempty"`
	Metadata map[string]string `json:"metadata,omitempty"`
	Enrolled time.Time         `json:"enrolled,omitzero"`

	// Revoked is when the agent as a whole was revoked last. Tokens that are
	// older cannot bring it back.
	Revoked time.Time `json:"revoked,omitzero"`

	// Removed is when the agent was removed; zero: it was not. Its name is free.
	Removed time.Time `json:"removed,omitzero"`

	Forget time.Time `json:"forget,omitzero"` // zero: never
}

// GrantRecord is a token as a [Store] keeps it. Of the secret there is only the
// hash.
type GrantRecord struct {
	ID           string            `json:"id"`
	SecretHash   []byte            `json:"secret_hash"`     // SHA-256
	Agent        string            `json:"agent,omitempty"` // the only name it may take; empty: unbound
	Reattach     bool              `json:"reattach,omitempty"`
	Labels       map[string]string `json:"labels,omitempty"`
	OnlyKey      []byte            `json:"only_key,omitempty"` // SHA-256 of the one public key it is for
	Networks     []netip.Prefix    `json:"networks,omitempty"` // where it may be redeemed from
	Created      time.Time         `json:"created"`
	Expires      time.Time         `json:"expires"`
	WrongSecrets int               `json:"wrong_secrets,omitempty"`
	Burned       string            `json:"burned,omitempty"` // why it is void; empty: it is not

	// Set together when the token was redeemed.
	KeyHash []byte `json:"key_hash,omitempty"` // SHA-256 of the public key it went to
	Serial  string `json:"serial,omitempty"`   // of the certificate it became

	// Spent is when that certificate was first used. The token does nothing
	// any more.
	Spent time.Time `json:"spent,omitzero"`

	Forget time.Time `json:"forget"`
}

// CertificateRecord is a certificate that was issued to an agent.
type CertificateRecord struct {
	Serial   string    `json:"serial"`
	Agent    string    `json:"agent"`
	KeyHash  []byte    `json:"key_hash"`           // SHA-256 of the public key
	Raw      []byte    `json:"raw"`                // DER
	Previous string    `json:"previous,omitempty"` // serial of the one it renewed; empty: enrolled
	Grant    string    `json:"grant,omitempty"`    // ID of the token that the agent enrolled with
	Created  time.Time `json:"created"`
	NotAfter time.Time `json:"not_after"`

	// Seen is when the certificate was first used. The one that it renewed is
	// Retired at the same time: connections that it has go on, new ones are
	// refused.
	Seen    time.Time `json:"seen,omitzero"`
	Retired time.Time `json:"retired,omitzero"`

	Revoked time.Time `json:"revoked,omitzero"`
	Reason  string    `json:"reason,omitempty"` // of the revocation

	Forget time.Time `json:"forget"`
}

// live reports whether the certificate is good at now.
func (c *CertificateRecord) live(now time.Time) bool {
	return c.Revoked.IsZero() && c.Retired.IsZero() && now.Before(c.NotAfter)
}

// RevocationRecord is an entry in the log of revocations: of a certificate, when
// Serial is set, or else of a public key.
type RevocationRecord struct {
	Number  uint64    `json:"number"`
	Serial  string    `json:"serial,omitempty"`
	Agent   string    `json:"agent,omitempty"` // whose certificate it is
	KeyHash []byte    `json:"key_hash"`        // SHA-256 of the public key
	Reason  string    `json:"reason,omitempty"`
	Time    time.Time `json:"time"`

	Forget time.Time `json:"forget,omitzero"` // zero: never
}

func (a AgentRecord) clone() AgentRecord {
	a.Labels = maps.Clone(a.Labels)
	a.Metadata = maps.Clone(a.Metadata)
	return a
}

func (g GrantRecord) clone() GrantRecord {
	g.SecretHash = slices.Clone(g.SecretHash)
	g.Labels = maps.Clone(g.Labels)
	g.OnlyKey = slices.Clone(g.OnlyKey)
	g.Networks = slices.Clone(g.Networks)
	g.KeyHash = slices.Clone(g.KeyHash)
	return g
}

func (c CertificateRecord) clone() CertificateRecord {
	c.KeyHash = slices.Clone(c.KeyHash)
	c.Raw = slices.Clone(c.Raw)
	return c
}

func (r RevocationRecord) clone() RevocationRecord {
	r.KeyHash = slices.Clone(r.KeyHash)
	return r
}
