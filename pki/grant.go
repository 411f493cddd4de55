package pki

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Lives of a token, for [Grant].
const (
	TTLByHand     = 15 * time.Minute // for a person who pastes it; the default
	TTLAutomation = 24 * time.Hour   // for a pipeline; as long as an [Authority] allows unless it says otherwise
)

const (
	maxWrongSecrets = 5
	maxLabels       = 64
	maxNetworks     = 64
)

// Grant says what a token is for.
//
// A token is good for one agent, once. With a name it is bound: any agent that
// asks for another name burns it. Without one it is unbound: the agent takes the
// name it asks for, or a UUID if it asks for none, but never a name that a bound
// token waits for, or one of an agent that is known, unless Reattach allows the
// latter. To give a known name to a new machine, bind a token to it.
//
// The first key that comes with the token is the one it is redeemed for. Another
// key burns the token, five wrong secrets do, and time does.
type Grant struct {
	Agent string        // see [CheckName]; empty: unbound
	TTL   time.Duration // 0 means TTLByHand; at most MaxGrantTTL of the [Authority]

	// Labels are given to the agent, for policies; at most 64. nil leaves a
	// known agent those that it has.
	Labels map[string]string

	// Reattach lets an unbound token take the name of an agent that is known:
	// one that [Authority.PutAgent] has announced, or that enrolled before and
	// lost its identity. Whoever holds the token can then be any agent, but not
	// one that was revoked after the token was granted.
	Reattach bool

	// Key is the only key that the token may be redeemed for, which makes it
	// useless to a thief. Zero means the first that comes. A [Pin] is the hash
	// of a public key, whether there is a certificate for it or not.
	Key Pin

	// Networks are the only ones that the token may be redeemed from, at most
	// 64; nil means from everywhere. It is Source of [Registration] that counts,
	// which behind a proxy is the proxy.
	Networks []netip.Prefix
}

func (g *Grant) check() error {
	if g.Agent != "" {
		if err := CheckName(g.Agent); err != nil {
			return err
		}
	}
	switch {
	case len(g.Labels) > maxLabels:
		return fmt.Errorf("pki: grant: %d labels; at most %d", len(g.Labels), maxLabels)
	case len(g.Networks) > maxNetworks:
		return fmt.Errorf("pki: grant: %d networks; at most %d", len(g.Networks), maxNetworks)
	case g.Agent != "" && g.Reattach:
		return errors.New("pki: grant: Reattach is for an unbound token; one with a name may take it")
	}
	for _, n := range g.Networks {
		if !n.IsValid() || n.Addr().Is4In6() {
			return fmt.Errorf("pki: grant: network %s: use a prefix of IPv4 such as 192.0.2.0/24, or of IPv6", n)
		}
	}
	return nil
}

// Grant mints a token. It cannot be read back later: the store keeps a hash of
// it only.
func (a *Authority) Grant(ctx context.Context, g Grant) (Token, error) {
	if err := a.check(); err != nil {
		return Token{}, err
	}
	if err := g.check(); err != nil {
		return Token{}, err
	}
	ttl, err := a.grantTTL(g.TTL)
	if err != nil {
		return Token{}, err
	}
	record := GrantRecord{
		Agent:    g.Agent,
		Reattach: g.Reattach,
		Labels:   maps.Clone(g.Labels),
	}
	for _, n := range g.Networks {
		record.Networks = append(record.Networks, n.Masked())
	}
	if g.Key != (Pin{}) {
		record.OnlyKey = slices.Clone(g.Key[:])
	}
	token := record.mint(ttl)
	if err := a.Store.Update(ctx, func(tx Tx) error { return addGrant(tx, record) }); err != nil {
		return Token{}, fmt.Errorf("pki: grant: %w", err)
	}
	a.log().InfoContext(ctx, "pki: token granted", "token", record.ID, "agent", record.Agent, "expires", record.Expires)
	return token, nil
}

func (a *Authority) grantTTL(ttl time.Duration) (time.Duration, error) {
	limit := a.MaxGrantTTL
	if limit == 0 {
		limit = TTLAutomation
	}
	if ttl == 0 {
		ttl = min(TTLByHand, limit)
	}
	if ttl < 0 || ttl > limit {
		return 0, fmt.Errorf("pki: grant: TTL %s is not between 0 and MaxGrantTTL, %s", ttl, limit)
	}
	return ttl, nil
}

// mint gives the grant a new token that starts to live now.
func (g *GrantRecord) mint(ttl time.Duration) Token {
	token, now := newToken(), time.Now().UTC()
	hash := token.hash()
	g.ID, g.SecretHash = token.ID(), hash[:]
	g.Created, g.Expires = now, now.Add(ttl)
	g.Forget = g.Expires.Add(remember)
	return token
}

func addGrant(tx Tx, g GrantRecord) error {
	if _, err := tx.Grant(g.ID); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(errors.New("the random ID is taken"), err)
	}
	return tx.PutGrant(g)
}

// Remint makes a token void and mints one in its place that is good for the same
// agent, labels, key and networks, and lives as long from now. It is for a token
// that was lost, or expired before it was used. The error matches fs.ErrNotExist
// when there is no such token.
func (a *Authority) Remint(ctx context.Context, id string) (Token, error) {
	if err := a.check(); err != nil {
		return Token{}, err
	}
	var token Token
	var fresh GrantRecord
	err := a.Store.Update(ctx, func(tx Tx) error {
		old, err := tx.Grant(id)
		if err != nil {
			return err
		}
		fresh = GrantRecord{Agent: old.Agent, Reattach: old.Reattach, Labels: old.Labels, OnlyKey: old.OnlyKey, Networks: old.Networks}
		token = fresh.mint(old.Expires.Sub(old.Created))
		if old.Burned == "" {
			old.Burned = "replaced by token " + fresh.ID
		}
		return errors.Join(tx.PutGrant(old), addGrant(tx, fresh))
	})
	if err != nil {
		return Token{}, fmt.Errorf("pki: mint token again: %w", err)
	}
	a.log().InfoContext(ctx, "pki: token granted", "token", fresh.ID, "agent", fresh.Agent, "expires", fresh.Expires, "instead_of", id)
	return token, nil
}

// Grants lists what was granted and is not forgotten, which is 30 days after it
// has expired, by creation time: the tokens bound to the agent, or all if agent
// is empty.
func (a *Authority) Grants(ctx context.Context, agent string) ([]GrantRecord, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	var all []GrantRecord
	err := a.Store.View(ctx, func(tx Tx) (err error) {
		all, err = tx.Grants(agent)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("pki: list tokens: %w", err)
	}
	return all, nil
}

// GrantStatus is what has become of a token.
type GrantStatus string

// Of a token there is one status at a time; the first that holds, in this order.
const (
	GrantRedeemed GrantStatus = "redeemed" // an agent has its certificate
	GrantVoid     GrantStatus = "void"     // revoked, replaced, burned by misuse or locked
	GrantExpired  GrantStatus = "expired"
	GrantOpen     GrantStatus = "open" // it waits for its agent
)

// Status tells what has become of the token at a time.
func (g *GrantRecord) Status(now time.Time) GrantStatus {
	switch {
	case g.Serial != "":
		return GrantRedeemed
	case g.Burned != "" || g.WrongSecrets >= maxWrongSecrets:
		return GrantVoid
	case !now.Before(g.Expires):
		return GrantExpired
	}
	return GrantOpen
}

// RevokeGrant makes a token void. An agent that has redeemed it keeps its
// certificate; see [Authority.Revoke]. The error matches fs.ErrNotExist when
// there is no such token.
func (a *Authority) RevokeGrant(ctx context.Context, id, reason string) error {
	if err := a.check(); err != nil {
		return err
	}
	err := a.Store.Update(ctx, func(tx Tx) error {
		g, err := tx.Grant(id)
		if err != nil {
			return err
		}
		if g.Burned != "" {
			return nil
		}
		g.Burned = "revoked: " + reason
		return tx.PutGrant(g)
	})
	if err != nil {
		return fmt.Errorf("pki: revoke token: %w", err)
	}
	a.log().InfoContext(ctx, "pki: token revoked", "token", id, "reason", reason)
	return nil
}
