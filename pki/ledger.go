package pki

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

// ledger is the state that MemoryStore and FileStore hold in memory.
type ledger struct {
	agents       map[string]AgentRecord
	grants       map[string]GrantRecord
	certificates map[string]CertificateRecord
	revocations  []RevocationRecord          // by number
	revokedKeys  map[string]RevocationRecord // by the key's hash, in hex
	byAgent      index                       // certificates
	boundTo      index                       // grants
	forgetAt     int                         // size at which to look for records to forget
}

// minForget keeps a small ledger from being swept all the time.
const minForget = 1024

func newLedger() *ledger {
	return &ledger{
		agents:       make(map[string]AgentRecord),
		grants:       make(map[string]GrantRecord),
		certificates: make(map[string]CertificateRecord),
		revokedKeys:  make(map[string]RevocationRecord),
		byAgent:      make(index),
		boundTo:      make(index),
		forgetAt:     minForget,
	}
}

func (l *ledger) size() int {
	return len(l.agents) + len(l.grants) + len(l.certificates) + len(l.revocations)
}

// change is what one transaction put, and what the journal keeps of it.
type change struct {
	Agents       map[string]AgentRecord       `json:"agents,omitempty"`
	Grants       map[string]GrantRecord       `json:"grants,omitempty"`
	Certificates map[string]CertificateRecord `json:"certificates,omitempty"`
	Revocations  []RevocationRecord           `json:"revocations,omitempty"`
}

func (c *change) empty() bool {
	return len(c.Agents) == 0 && len(c.Grants) == 0 && len(c.Certificates) == 0 && len(c.Revocations) == 0
}

func (l *ledger) apply(c *change) {
	maps.Copy(l.agents, c.Agents)
	for id, g := range c.Grants {
		if old, known := l.grants[id]; known {
			l.boundTo.remove(old.Agent, id)
		}
		l.boundTo.add(g.Agent, id)
		l.grants[id] = g
	}
	for serial, cert := range c.Certificates {
		l.byAgent.add(cert.Agent, serial)
		l.certificates[serial] = cert
	}
	l.revocations = append(l.revocations, c.Revocations...)
	for _, r := range c.Revocations {
		if r.Serial == "" {
			l.revokedKeys[hex.EncodeToString(r.KeyHash)] = r
		}
	}
}

// lastNumber is that of the newest revocation.
func (l *ledger) lastNumber() uint64 {
	if len(l.revocations) == 0 {
		return 0
	}
	return l.revocations[len(l.revocations)-1].Number
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
	maps.DeleteFunc(l.agents, func(_ string, a AgentRecord) bool { return forgotten(a.Forget, now) })
	for id, g := range l.grants {
		if forgotten(g.Forget, now) {
			delete(l.grants, id)
			l.boundTo.remove(g.Agent, id)
		}
	}
	for serial, cert := range l.certificates {
		if forgotten(cert.Forget, now) {
			delete(l.certificates, serial)
			l.byAgent.remove(cert.Agent, serial)
		}
	}
	last := l.lastNumber()
	l.revocations = slices.DeleteFunc(l.revocations, func(r RevocationRecord) bool {
		return r.Number != last && forgotten(r.Forget, now)
	})
	maps.DeleteFunc(l.revokedKeys, func(_ string, r RevocationRecord) bool { return forgotten(r.Forget, now) })
}

func forgotten(forget, now time.Time) bool { return !forget.IsZero() && !now.Before(forget) }

// index finds the keys of records by the agent they belong to.
type index map[string]map[string]struct{}

func (x index) add(agent, key string) {
	if x[agent] == nil {
		x[agent] = make(map[string]struct{})
	}
	x[agent][key] = struct{}{}
}

func (x index) remove(agent, key string) {
	delete(x[agent], key)
	if len(x[agent]) == 0 {
		delete(x, agent)
	}
}
