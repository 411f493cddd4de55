package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Rules is a [Policy] made of the lists of a policy document; see the package
// comment for what they mean. Make it with [Parse]. It never changes, so all
// methods may be called concurrently; to reload a policy put another Rules in its
// place. A nil and the zero Rules deny everything.
type Rules struct {
	open   bool // enable_access_restrictions is false
	allow  index
	deny   index
	source string // canonical
}

var _ SpecialAllower = (*Rules)(nil)

// Decision is what [Rules.Explain] found.
type Decision struct {
	Allowed bool
	// Pending says that the target is a name whose address was not in the request:
	// Allowed then means that the name may be resolved, and each address needs a
	// decision of its own.
	Pending bool
	Rule    string // the rule that decided; empty when none did
	Line    int    // of that rule in its document; 0 when none decided
	Reason  string
}

// String is one line such as "denied by rule 10.0.0.0/8 on line 7: ...".
func (d Decision) String() string {
	s := "denied"
	switch {
	case d.Allowed && d.Pending:
		s = "may be resolved"
	case d.Allowed:
		s = "allowed"
	}
	if d.Rule != "" {
		s += " by rule " + d.Rule + " on line " + strconv.Itoa(d.Line)
	}
	return s + ": " + d.Reason
}

// Authorize returns nil when [Rules.Explain] allows, and otherwise a *[Denied]. It
// never blocks and does not allocate when it allows.
func (r *Rules) Authorize(_ context.Context, req Request) error {
	v := r.decide(&req)
	if v.allowed {
		return nil
	}
	e := &Denied{Reason: v.reason, Target: req.Target, Addr: req.Addr}
	if v.rule != nil {
		e.Rule = v.rule.text
	}
	return e
}

// AllowSpecial reports whether a rule with allow_special opens req.Addr, and no
// other denies it.
func (r *Rules) AllowSpecial(req Request) bool {
	v := r.decide(&req)
	return v.allowed && v.rule != nil && v.rule.special
}

// Explain decides as Authorize does and says why.
func (r *Rules) Explain(req Request) Decision {
	v := r.decide(&req)
	d := Decision{Allowed: v.allowed, Pending: v.allowed && v.pending, Reason: v.reason}
	if v.rule != nil {
		d.Rule, d.Line = v.rule.text, v.rule.line
	}
	return d
}

// String is the rules in one spelling and order, as a document that [Parse] reads.
// Two documents with the same String decide alike.
func (r *Rules) String() string {
	if r == nil || r.source == "" {
		return canonicalSource(false, nil, nil)
	}
	return r.source
}

// Digest is "sha256:" and the hexadecimal SHA-256 of String: what a gateway is told
// to recognise a policy by.
func (r *Rules) Digest() string {
	sum := sha256.Sum256([]byte(r.String()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

type verdict struct {
	allowed bool
	pending bool
	rule    *rule
	reason  string
}

const (
	reasonNoRules  = "there are no rules; make them with Parse"
	reasonMismatch = "the request's address is not the one that the target names"
	reasonZone     = "an address with a zone is refused"
	reasonDenied   = "a rule denies it"
	reasonNone     = "no rule allows it"
	reasonNoSocket = "a unix socket needs a rule that names it"
	reasonName     = "a rule allows the name"
	reasonAddr     = "a rule allows the address"
	reasonMaybe    = "a rule may allow the address"
	reasonService  = "a rule allows the service"
	reasonOpened   = "a rule opens the special address"
	reasonOpen     = "access restrictions are off"
)

// decide is the order of the package comment: deny rules, deny floor, allow rules.
func (r *Rules) decide(req *Request) (v verdict) {
	t := req.Target
	if r == nil || r.source == "" {
		return verdict{reason: reasonNoRules}
	}
	if reason := t.check(); reason != "" {
		return verdict{reason: reason}
	}
	if !hasHostPort(t.Service) {
		return r.decideService(t)
	}
	addr := req.Addr.Unmap()
	if own, ok := t.literal(); ok {
		if addr.IsValid() && addr != own {
			return verdict{reason: reasonMismatch}
		}
		addr = own
	}
	if addr.Zone() != "" {
		return verdict{reason: reasonZone}
	}
	pending := !addr.IsValid()
	if rule := r.deniedBy(t, addr); rule != nil {
		return verdict{rule: rule, reason: reasonDenied}
	}
	if !pending {
		if kind, special := Special(addr); special {
			if rule := r.allow.matchSpecial(t, addr); rule != nil {
				return verdict{allowed: true, rule: rule, reason: reasonOpened}
			}
			return verdict{reason: reasonSpecial(kind)}
		}
	}
	if r.open {
		return verdict{allowed: true, pending: pending, reason: reasonOpen}
	}
	if rule := r.allow.matchName(t); rule != nil {
		return verdict{allowed: true, pending: pending, rule: rule, reason: reasonName}
	}
	if !pending {
		if rule := r.allow.matchAddr(t, addr); rule != nil {
			return verdict{allowed: true, rule: rule, reason: reasonAddr}
		}
	}
	if rule := r.allow.matchStar(t, false); rule != nil {
		return verdict{allowed: true, pending: pending, rule: rule, reason: reasonName}
	}
	if pending {
		if rule := r.allow.mayMatchAddr(t); rule != nil {
			return verdict{allowed: true, pending: true, rule: rule, reason: reasonMaybe}
		}
	}
	return verdict{reason: reasonNone}
}

func (r *Rules) decideService(t Target) verdict {
	if rule := r.deny.matchService(t); rule != nil {
		return verdict{rule: rule, reason: reasonDenied}
	}
	if rule := r.allow.matchService(t); rule != nil {
		return verdict{allowed: true, rule: rule, reason: reasonService}
	}
	switch {
	case t.Service == "unix":
		return verdict{reason: reasonNoSocket}
	case r.open:
		return verdict{allowed: true, reason: reasonOpen}
	}
	return verdict{reason: reasonNone}
}

// deniedBy finds a deny rule for the service, the name, the address or an IPv4
// address inside it.
func (r *Rules) deniedBy(t Target, addr netip.Addr) *rule {
	if rule := r.deny.matchService(t); rule != nil {
		return rule
	}
	if rule := r.deny.matchName(t); rule != nil {
		return rule
	}
	if rule := r.deny.matchStar(t, true); rule != nil {
		return rule
	}
	if !addr.IsValid() || len(r.deny.prefixes) == 0 {
		return nil
	}
	if rule := r.deny.matchAddr(t, addr); rule != nil {
		return rule
	}
	inner, n := embedded(addr)
	for _, v4 := range inner[:n] {
		if rule := r.deny.matchAddr(t, v4); rule != nil {
			return rule
		}
	}
	return nil
}

func reasonSpecial(kind string) string {
	return "the address is special (" + kind + "): only a rule for exactly this address with allow_special opens it"
}

// newRules indexes the rules; the lists are deduplicated and sorted first, so that
// what they say does not depend on their order.
func newRules(open bool, allow, deny []*rule) *Rules {
	allow, deny = normalize(allow), normalize(deny)
	return &Rules{open: open, allow: newIndex(allow), deny: newIndex(deny), source: canonicalSource(open, allow, deny)}
}

func normalize(rules []*rule) []*rule {
	slices.SortStableFunc(rules, func(a, b *rule) int { return strings.Compare(a.source, b.source) })
	return slices.CompactFunc(rules, func(a, b *rule) bool { return a.source == b.source })
}

func canonicalSource(open bool, allow, deny []*rule) string {
	var b strings.Builder
	b.WriteString("enable_access_restrictions: " + strconv.FormatBool(!open) + "\n")
	for _, list := range []struct {
		key   string
		rules []*rule
	}{{keyAllowed, allow}, {keyDenied, deny}} {
		if len(list.rules) == 0 {
			continue
		}
		b.WriteString(list.key + ":\n")
		for _, r := range list.rules {
			b.WriteString("  - " + r.source + "\n")
		}
	}
	return b.String()
}
