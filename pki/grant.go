package pki

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"time"
)

const (
	defaultGrantTTL = 15 * time.Minute
	maxWrongSecrets = 5
	maxLabels       = 64
)

// Grant says what a token is for.
//
// A token is good for one agent, once. With a name it is bound: any agent that
// asks for another name burns it. Without one it is unbound: the agent takes the
// name it asks for, or a UUID if it asks for none, but never a name that another
// agent holds or that a bound token waits for. To give a known name to a new
// machine, bind a token to it.
//
// The first key that comes with the token is the one it is redeemed for. Another
// key burns the token, five wrong secrets do, and time does.
type Grant struct {
	Agent  string            // see [CheckName]; empty: unbound
	TTL    time.Duration     // 0 means 15 minutes; at most MaxGrantTTL of the [Authority]
	Labels map[string]string // given to the agent, for policies; at most 64
}

// Grant mints a token. It cannot be read back later: the store keeps a hash of
// it only.
func (a *Authority) Grant(ctx context.Context, g Grant) (Token, error) {
	if err := a.check(); err != nil {
		return Token{}, err
	}
	if g.Agent != "" {
		if err := CheckName(g.Agent); err != nil {
			return Token{}, err
		}
	}
	if len(g.Labels) > maxLabels {
		return Token{}, fmt.Errorf("pki: grant: %d labels; at most %d", len(g.Labels), maxLabels)
	}
	limit := a.MaxGrantTTL
	if limit == 0 {
		limit = defaultMaxGrantTTL
	}
	ttl := g.TTL
	if ttl == 0 {
		ttl = min(defaultGrantTTL, limit)
	}
	if ttl < 0 || ttl > limit {
		return Token{}, fmt.Errorf("pki: grant: TTL %s is not between 0 and %s", ttl, limit)
	}
	token, now := newToken(), time.Now().UTC()
	hash := token.hash()
	record := GrantRecord{
		ID:         token.ID(),
		SecretHash: hash[:],
		Agent:      g.Agent,
		Labels:     maps.Clone(g.Labels),
		Created:    now,
		Expires:    now.Add(ttl),
		Forget:     now.Add(ttl).Add(remember),
	}
	err := a.Store.Update(ctx, func(tx Tx) error {
		if _, err := tx.Grant(record.ID); !errors.Is(err, fs.ErrNotExist) {
			return errors.Join(errors.New("pki: grant: the random ID is taken"), err)
		}
		return tx.PutGrant(record)
	})
	if err != nil {
		return Token{}, fmt.Errorf("pki: grant: %w", err)
	}
	a.log().InfoContext(ctx, "pki: token granted", "token", record.ID, "agent", record.Agent, "expires", record.Expires)
	return token, nil
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

// refusal is why a request was refused. It goes to the log and no further.
type refusal string

const (
	causeUnknown        refusal = "unknown token"
	causeLocked         refusal = "locked after wrong secrets"
	causeWrongSecret    refusal = "wrong secret"
	causeBurned         refusal = "token burned"
	causeExpired        refusal = "token expired"
	causeWrongName      refusal = "wrong name; token burned"
	causeUsed           refusal = "token already used with another key; token burned"
	causeNameTaken      refusal = "name belongs to another agent"
	causeRevoked        refusal = "certificate of this token revoked"
	causeBadRequest     refusal = "bad request"
	causeBadCSR         refusal = "bad signing request"
	causeBadCertificate refusal = "certificate not accepted"
	causeKeyReused      refusal = "key was used before"
	causeTooMany        refusal = "renewed too often"
)

func (r refusal) Error() string { return string(r) }

func refuse(cause refusal, err error) error { return fmt.Errorf("%w: %w", cause, err) }

// redemption is one attempt to use a token.
type redemption struct {
	Registration
	hash    [sha256.Size]byte // of the secret
	keyHash []byte
	now     time.Time
}

func (a *Authority) redeem(ctx context.Context, r Registration) (*CertificateRecord, error) {
	if r.Token.IsZero() {
		return nil, refuse(causeUnknown, errors.New("no token"))
	}
	if err := r.check(); err != nil {
		return nil, refuse(causeBadRequest, err)
	}
	key, keyHash, err := a.requestedKey(r.CSR)
	if err != nil {
		return nil, err
	}
	try := redemption{Registration: r, hash: r.Token.hash(), keyHash: keyHash, now: time.Now()}

	// Most attempts that fail do so here, before they cost a signature.
	var name string
	var verdict error
	err = a.Store.View(ctx, func(tx Tx) error {
		var g GrantRecord
		var err error
		g, verdict, err = try.judge(tx)
		name = try.name(g)
		return err
	})
	if err != nil {
		return nil, err
	}
	var fresh *CertificateRecord
	if verdict == nil {
		if fresh, err = a.candidate(try, name, key); err != nil {
			return nil, err
		}
	}

	// The one step that counts: it judges again and keeps what it decides.
	var record CertificateRecord
	err = a.Store.Update(ctx, func(tx Tx) error {
		var g GrantRecord
		var err error
		if g, verdict, err = try.judge(tx); err != nil {
			return err
		}
		if verdict != nil {
			return try.note(tx, g, verdict)
		}
		if g.Serial != "" {
			record, err = tx.Certificate(g.Serial)
			if err == nil && !record.Revoked.IsZero() {
				verdict = causeRevoked
			}
			return err
		}
		if fresh == nil { // between the two looks a refusal has become a yes
			return errors.New("token changed while it was redeemed; try again")
		}
		record = *fresh
		record.Labels = g.Labels
		g.KeyHash, g.Serial = try.keyHash, record.Serial
		return errors.Join(tx.PutGrant(g), tx.PutCertificate(record))
	})
	if err == nil {
		err = verdict
	}
	if err != nil {
		return nil, err
	}
	return &record, nil
}

// candidate is the certificate that the token becomes if it is still good.
func (a *Authority) candidate(try redemption, name string, key crypto.PublicKey) (*CertificateRecord, error) {
	cert, err := a.sign(a.agentTemplate(name, try.now), key)
	if err != nil {
		return nil, err
	}
	record := newCertificateRecord(cert, name, try.keyHash, try.now)
	record.Grant = try.Token.ID()
	record.Hostname = try.Hostname
	record.Metadata = maps.Clone(try.Metadata)
	return &record, nil
}

func (try *redemption) name(g GrantRecord) string {
	switch {
	case g.Agent != "":
		return g.Agent
	case try.Agent != "":
		return try.Agent
	}
	return newUUID()
}

// judge says whether the token is good for this attempt. verdict is nil also
// for a repeated attempt, when g.Serial tells the certificate it led to.
func (try *redemption) judge(tx Tx) (g GrantRecord, verdict, err error) {
	g, err = tx.Grant(try.Token.ID())
	known := err == nil
	if !known {
		if !errors.Is(err, fs.ErrNotExist) {
			return g, nil, err
		}
		g.SecretHash = make([]byte, sha256.Size) // an unknown token costs the same comparison
	}
	right := subtle.ConstantTimeCompare(g.SecretHash, try.hash[:]) == 1
	switch {
	case !known:
		return g, causeUnknown, nil
	case g.WrongSecrets >= maxWrongSecrets:
		return g, causeLocked, nil
	case !right:
		return g, causeWrongSecret, nil
	case g.Burned != "":
		return g, refuse(causeBurned, errors.New(g.Burned)), nil
	case !try.now.Before(g.Expires):
		return g, causeExpired, nil
	case g.Agent != "" && try.Agent != "" && try.Agent != g.Agent:
		return g, refuse(causeWrongName, fmt.Errorf("token is for %q", g.Agent)), nil
	case g.Serial != "" && !bytes.Equal(g.KeyHash, try.keyHash):
		return g, refuse(causeUsed, fmt.Errorf("serial %s has the first key", g.Serial)), nil
	case g.Serial == "" && g.Agent == "" && try.Agent != "":
		verdict, err = try.nameFree(tx)
		return g, verdict, err
	}
	return g, nil, nil
}

// nameFree keeps an unbound token from a name that is, or is about to be,
// another agent's.
func (try *redemption) nameFree(tx Tx) (verdict, err error) {
	certificates, err := tx.Certificates(try.Agent)
	if err != nil {
		return nil, err
	}
	for _, c := range certificates {
		if c.live(try.now) {
			return refuse(causeNameTaken, fmt.Errorf("serial %s", c.Serial)), nil
		}
	}
	grants, err := tx.Grants()
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		if g.Agent == try.Agent && g.Burned == "" && g.Serial == "" && try.now.Before(g.Expires) {
			return refuse(causeNameTaken, fmt.Errorf("token %s is bound to it", g.ID)), nil
		}
	}
	return nil, nil
}

// note writes down what a refused attempt does to the token.
func (try *redemption) note(tx Tx, g GrantRecord, verdict error) error {
	switch {
	case errors.Is(verdict, causeWrongSecret) && g.Burned == "" && try.now.Before(g.Expires):
		g.WrongSecrets++
	case errors.Is(verdict, causeWrongName), errors.Is(verdict, causeUsed):
		g.Burned = verdict.Error()
	default:
		return nil
	}
	return tx.PutGrant(g)
}
