package pki

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"slices"
)

// ledgerTx shows a ledger with a change laid over it.
type ledgerTx struct {
	ledger   *ledger
	change   change
	readOnly bool
}

var _ Tx = (*ledgerTx)(nil)

var errReadOnly = errors.New("pki: store: put inside View")

func (tx *ledgerTx) Agent(name string) (AgentRecord, error) {
	return find("agent", name, tx.change.Agents, tx.ledger.agents)
}

func (tx *ledgerTx) Agents() ([]AgentRecord, error) {
	all := merge(tx.change.Agents, tx.ledger.agents, maps.Keys(tx.ledger.agents))
	slices.SortFunc(all, func(a, b AgentRecord) int { return cmp.Compare(a.Name, b.Name) })
	return all, nil
}

func (tx *ledgerTx) PutAgent(a AgentRecord) error {
	switch {
	case tx.readOnly:
		return errReadOnly
	case a.Name == "":
		return errors.New("pki: store: agent without a name")
	}
	set(&tx.change.Agents, a.Name, a)
	return nil
}

func (tx *ledgerTx) Grant(id string) (GrantRecord, error) {
	return find("grant", id, tx.change.Grants, tx.ledger.grants)
}

func (tx *ledgerTx) Grants(agent string) ([]GrantRecord, error) {
	keys := maps.Keys(tx.ledger.grants)
	if agent != "" {
		keys = maps.Keys(tx.ledger.boundTo[agent])
	}
	all := merge(tx.change.Grants, tx.ledger.grants, keys)
	if agent != "" {
		all = slices.DeleteFunc(all, func(g GrantRecord) bool { return g.Agent != agent })
	}
	slices.SortFunc(all, func(a, b GrantRecord) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

func (tx *ledgerTx) PutGrant(g GrantRecord) error {
	switch {
	case tx.readOnly:
		return errReadOnly
	case g.ID == "":
		return errors.New("pki: store: grant without an ID")
	}
	set(&tx.change.Grants, g.ID, g)
	return nil
}

func (tx *ledgerTx) Certificate(serial string) (CertificateRecord, error) {
	return find("certificate", serial, tx.change.Certificates, tx.ledger.certificates)
}

func (tx *ledgerTx) Certificates(agent string) ([]CertificateRecord, error) {
	keys := maps.Keys(tx.ledger.certificates)
	if agent != "" {
		keys = maps.Keys(tx.ledger.byAgent[agent])
	}
	all := merge(tx.change.Certificates, tx.ledger.certificates, keys)
	if agent != "" {
		all = slices.DeleteFunc(all, func(c CertificateRecord) bool { return c.Agent != agent })
	}
	slices.SortFunc(all, func(a, b CertificateRecord) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Serial, b.Serial))
	})
	return all, nil
}

func (tx *ledgerTx) PutCertificate(c CertificateRecord) error {
	switch {
	case tx.readOnly:
		return errReadOnly
	case c.Serial == "" || c.Agent == "":
		return errors.New("pki: store: certificate without a serial number or an agent")
	}
	if old, err := tx.Certificate(c.Serial); err == nil && old.Agent != c.Agent {
		return fmt.Errorf("pki: store: certificate %s belongs to agent %q and cannot move to %q", c.Serial, old.Agent, c.Agent)
	}
	set(&tx.change.Certificates, c.Serial, c)
	return nil
}

func (tx *ledgerTx) Revocations(after uint64) ([]RevocationRecord, error) {
	var found []RevocationRecord
	for _, part := range [][]RevocationRecord{tx.ledger.revocations, tx.change.Revocations} {
		first, _ := slices.BinarySearchFunc(part, after+1, func(r RevocationRecord, n uint64) int { return cmp.Compare(r.Number, n) })
		for _, r := range part[first:] {
			found = append(found, r.clone())
		}
	}
	return found, nil
}

func (tx *ledgerTx) KeyRevocation(keyHash []byte) (RevocationRecord, error) {
	for _, r := range tx.change.Revocations {
		if r.Serial == "" && bytes.Equal(r.KeyHash, keyHash) {
			return r.clone(), nil
		}
	}
	return find("revocation of key", hex.EncodeToString(keyHash), nil, tx.ledger.revokedKeys)
}

func (tx *ledgerTx) AddRevocation(r RevocationRecord) error {
	switch {
	case tx.readOnly:
		return errReadOnly
	case r.Serial == "" && len(r.KeyHash) == 0:
		return errors.New("pki: store: revocation of nothing")
	}
	r = r.clone()
	r.Number = tx.ledger.lastNumber() + uint64(len(tx.change.Revocations)) + 1
	tx.change.Revocations = append(tx.change.Revocations, r)
	return nil
}

type record[R any] interface{ clone() R }

// find finds a record in what the transaction has put, or else in the ledger.
func find[R record[R]](kind, key string, changed, stored map[string]R) (R, error) {
	r, ok := changed[key]
	if !ok {
		r, ok = stored[key]
	}
	if !ok {
		return r, fmt.Errorf("pki: store: %s %.80q: %w", kind, key, fs.ErrNotExist)
	}
	return r.clone(), nil
}

// merge returns the records of these keys as stored, or as changed, and all that
// were changed.
func merge[R record[R]](changed, stored map[string]R, keys iter.Seq[string]) []R {
	var all []R
	for key := range keys {
		if _, also := changed[key]; !also {
			all = append(all, stored[key].clone())
		}
	}
	for _, r := range changed {
		all = append(all, r.clone())
	}
	return all
}

func set[R record[R]](changed *map[string]R, key string, r R) {
	if *changed == nil {
		*changed = make(map[string]R)
	}
	(*changed)[key] = r.clone()
}
