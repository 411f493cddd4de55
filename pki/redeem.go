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
	"net/netip"
	"slices"
	"time"
)

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
		g.KeyHash, g.Serial = try.keyHash, record.Serial
		return errors.Join(tx.PutGrant(g), tx.PutCertificate(record), try.putAgent(tx, g, record.Agent))
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
	case !try.from(g.Networks):
		return g, causeWrongNetwork, nil
	case len(g.OnlyKey) > 0 && !bytes.Equal(g.OnlyKey, try.keyHash):
		return g, causeWrongKey, nil
	case g.Agent != "" && try.Agent != "" && try.Agent != g.Agent:
		return g, refuse(causeWrongName, fmt.Errorf("token is for %q", g.Agent)), nil
	case g.Serial != "" && !bytes.Equal(g.KeyHash, try.keyHash):
		return g, refuse(causeUsed, fmt.Errorf("serial %s has the first key", g.Serial)), nil
	case !g.Spent.IsZero():
		return g, refuse(causeSpent, fmt.Errorf("serial %s was in use at %s", g.Serial, g.Spent.Format(time.RFC3339))), nil
	case g.Serial != "":
		return g, nil, nil
	}
	switch revoked, err := tx.KeyRevocation(try.keyHash); {
	case err == nil:
		return g, refuse(causeRevokedKey, errors.New(revoked.Reason)), nil
	case !errors.Is(err, fs.ErrNotExist):
		return g, nil, err
	}
	verdict, err = try.nameFree(tx, g)
	return g, verdict, err
}

// from reports whether the request came from one of the networks.
func (try *redemption) from(networks []netip.Prefix) bool {
	if len(networks) == 0 {
		return true
	}
	addr, ok := addrOf(try.Source)
	return ok && slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}

// nameFree keeps a token from a name that is, or is about to be, another
// agent's.
func (try *redemption) nameFree(tx Tx, g GrantRecord) (verdict, err error) {
	name := try.Agent
	if g.Agent != "" {
		name = g.Agent
	}
	if name == "" {
		return nil, nil // a new UUID is nobody's
	}
	agent, err := knownAgent(tx, name)
	known := err == nil
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return nil, err
	case known && g.Created.Before(agent.Revoked):
		return refuse(causeAgentRevoked, fmt.Errorf("at %s", agent.Revoked.Format(time.RFC3339))), nil
	case g.Agent != "":
		return nil, nil
	case known && !g.Reattach:
		return refuse(causeNameTaken, errors.New("the token may not take a known name")), nil
	}
	bound, err := tx.Grants(name)
	if err != nil {
		return nil, err
	}
	for _, other := range bound {
		if other.Status(try.now) == GrantOpen {
			return refuse(causeNameTaken, fmt.Errorf("token %s is bound to it", other.ID)), nil
		}
	}
	return nil, nil
}

// putAgent makes the agent known, or attaches the machine to its record.
func (try *redemption) putAgent(tx Tx, g GrantRecord, name string) error {
	agent, err := knownAgent(tx, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		agent = AgentRecord{Name: name, Created: try.now.UTC()}
	case err != nil:
		return err
	}
	if g.Labels != nil {
		agent.Labels = g.Labels
	}
	agent.Hostname, agent.Metadata = try.Hostname, maps.Clone(try.Metadata)
	agent.Enrolled = try.now.UTC()
	return tx.PutAgent(agent)
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
