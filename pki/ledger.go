package pki

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// ledger is the state that MemoryStore and FileStore hold in memory.
type ledger struct {
	grants       map[string]GrantRecord
	certificates map[string]CertificateRecord
	serials      map[string][]string // of an agent
	forgetAt     int                 // size at which to look for records to forget
}

// minForget keeps a small ledger from being swept all the time.
const minForget = 1024

func newLedger() *ledger {
	return &ledger{
		grants:       make(map[string]GrantRecord),
		certificates: make(map[string]CertificateRecord),
		serials:      make(map[string][]string),
		forgetAt:     minForget,
	}
}

func (l *ledger) size() int { return len(l.grants) + len(l.certificates) }

// change is what one transaction put, and what the journal keeps of it.
type change struct {
	Grants       map[string]GrantRecord       `json:"grants,omitempty"`
	Certificates map[string]CertificateRecord `json:"certificates,omitempty"`
}

func (c *change) empty() bool { return len(c.Grants) == 0 && len(c.Certificates) == 0 }

func (l *ledger) apply(c *change) {
	maps.Copy(l.grants, c.Grants)
	for serial, cert := range c.Certificates {
		if _, known := l.certificates[serial]; !known {
			l.serials[cert.Agent] = append(l.serials[cert.Agent], serial)
		}
		l.certificates[serial] = cert
	}
}

// sweep forgets what may be forgotten, each time the ledger has doubled: its
// size stays in proportion to what is live, and the cost of it per change small.
func (l *ledger) sweep(now time.Time) {
	if l.size() >= l.forgetAt {
		l.forget(now)
		l.forgetAt = max(minForget, 2*l.size())
	}
}

func (l *ledger) forget(now time.Time) {
	maps.DeleteFunc(l.grants, func(_ string, g GrantRecord) bool { return forgotten(g.Forget, now) })
	for serial, cert := range l.certificates {
		if !forgotten(cert.Forget, now) {
			continue
		}
		delete(l.certificates, serial)
		rest := slices.DeleteFunc(l.serials[cert.Agent], func(s string) bool { return s == serial })
		if len(rest) == 0 {
			delete(l.serials, cert.Agent)
		} else {
			l.serials[cert.Agent] = rest
		}
	}
}

func forgotten(forget, now time.Time) bool { return !forget.IsZero() && !now.Before(forget) }

// ledgerTx shows a ledger with a change laid over it.
type ledgerTx struct {
	ledger   *ledger
	change   change
	readOnly bool
}

var _ Tx = (*ledgerTx)(nil)

var errReadOnly = errors.New("pki: store: put inside View")

func (tx *ledgerTx) Grant(id string) (GrantRecord, error) {
	g, ok := tx.change.Grants[id]
	if !ok {
		g, ok = tx.ledger.grants[id]
	}
	if !ok {
		return GrantRecord{}, fmt.Errorf("pki: store: grant %.80q: %w", id, fs.ErrNotExist)
	}
	return g.clone(), nil
}

func (tx *ledgerTx) Grants() ([]GrantRecord, error) {
	all := make([]GrantRecord, 0, len(tx.ledger.grants)+len(tx.change.Grants))
	for id, g := range tx.ledger.grants {
		if _, changed := tx.change.Grants[id]; !changed {
			all = append(all, g.clone())
		}
	}
	for _, g := range tx.change.Grants {
		all = append(all, g.clone())
	}
	slices.SortFunc(all, func(a, b GrantRecord) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

func (tx *ledgerTx) PutGrant(g GrantRecord) error {
	if tx.readOnly {
		return errReadOnly
	}
	if g.ID == "" {
		return errors.New("pki: store: grant without an ID")
	}
	if tx.change.Grants == nil {
		tx.change.Grants = make(map[string]GrantRecord)
	}
	tx.change.Grants[g.ID] = g.clone()
	return nil
}

func (tx *ledgerTx) Certificate(serial string) (CertificateRecord, error) {
	c, ok := tx.change.Certificates[serial]
	if !ok {
		c, ok = tx.ledger.certificates[serial]
	}
	if !ok {
		return CertificateRecord{}, fmt.Errorf("pki: store: certificate %.80q: %w", serial, fs.ErrNotExist)
	}
	return c.clone(), nil
}

func (tx *ledgerTx) Certificates(agent string) ([]CertificateRecord, error) {
	var all []CertificateRecord
	take := func(serial string) {
		if _, changed := tx.change.Certificates[serial]; !changed {
			all = append(all, tx.ledger.certificates[serial].clone())
		}
	}
	if agent == "" {
		for serial := range tx.ledger.certificates {
			take(serial)
		}
	} else {
		for _, serial := range tx.ledger.serials[agent] {
			take(serial)
		}
	}
	for _, c := range tx.change.Certificates {
		if agent == "" || c.Agent == agent {
			all = append(all, c.clone())
		}
	}
	slices.SortFunc(all, func(a, b CertificateRecord) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Serial, b.Serial))
	})
	return all, nil
}

func (tx *ledgerTx) PutCertificate(c CertificateRecord) error {
	if tx.readOnly {
		return errReadOnly
	}
	if c.Serial == "" || c.Agent == "" {
		return errors.New("pki: store: certificate without a serial number or an agent")
	}
	if old, err := tx.Certificate(c.Serial); err == nil && old.Agent != c.Agent {
		return fmt.Errorf("pki: store: certificate %s belongs to agent %q and cannot move to %q", c.Serial, old.Agent, c.Agent)
	}
	if tx.change.Certificates == nil {
		tx.change.Certificates = make(map[string]CertificateRecord)
	}
	tx.change.Certificates[c.Serial] = c.clone()
	return nil
}
