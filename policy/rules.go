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
	audit  bool // audit_only
	allow  index
	deny   index
	kube   *Kubernetes
	source string // canonical
}

var (
	_ SpecialAllower = (*Rules)(nil)
	_ Auditor        = (*Rules)(nil)
	_ Digester       = (*Rules)(nil)
	_ Explainer      = (*Rules)(nil)
)

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
	if !v.allowed || v.pending || !hasHost(req.Target.Service) {
		return false
	}
	addr := req.Addr.Unmap()
	if own, ok := req.Target.literal(); ok {
		addr = own
	}
	return r.allow.matchSpecial(&req, addr) != nil
}

// WouldDeny returns the denial that audit_only lets pass, and otherwise nil. It costs
// next to nothing unless the document has audit_only.
func (r *Rules) WouldDeny(req Request) *Denied {
	if r == nil || !r.audit {
		return nil
	}
	if v := r.decide(&req); !v.audited {
		return nil
	}
	return &Denied{Reason: reasonNone, Target: req.Target, Addr: req.Addr}
}

// Explain decides as Authorize does and says why.
func (r *Rules) Explain(req Request) Decision {
	v := r.decide(&req)
	d := Decision{Allowed: v.allowed, Pending: v.allowed && v.pending, WouldDeny: v.audited, Reason: v.reason}
	if v.rule != nil {
		d.Rule, d.Line = v.rule.text, v.rule.line
	}
	return d
}

// String is the rules in one spelling and order, as a document that [Parse] reads.
// Two documents with the same String decide alike.
func (r *Rules) String() string {
	if r == nil || r.source == "" {
		return canonicalSource(&Rules{}, nil, nil)
	}
	return r.source
}

// Digest is "sha256:" and the hexadecimal SHA-256 of String: what a gateway is told
// to recognise a policy by.
func (r *Rules) Digest() string {
	sum := sha256.Sum256([]byte(r.String()))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Kubernetes returns the kubernetes block, nil when the document has none.
func (r *Rules) Kubernetes() *Kubernetes {
	if r == nil {
		return nil
	}
	return r.kube
}

type verdict struct {
	allowed bool
	pending bool
	audited bool // allowed by audit_only
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
	reasonAudited  = "no rule allows it; audit_only lets it pass"
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
	if !hasHost(t.Service) {
		return r.decideService(req)
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
	if rule := r.deniedBy(req, addr); rule != nil {
		return verdict{rule: rule, reason: reasonDenied}
	}
	if !pending {
		if kind, special := Special(addr); special {
			if rule := r.allow.matchSpecial(req, addr); rule != nil {
				return verdict{allowed: true, rule: rule, reason: reasonOpened}
			}
			return verdict{reason: reasonSpecial(kind)}
		}
	}
	if r.open {
		return verdict{allowed: true, pending: pending, reason: reasonOpen}
	}
	if rule := r.allow.matchName(req); rule != nil {
		return verdict{allowed: true, pending: pending, rule: rule, reason: reasonName}
	}
	if !pending {
		if rule := r.allow.matchAddr(req, addr); rule != nil {
			return verdict{allowed: true, rule: rule, reason: reasonAddr}
		}
	}
	if rule := r.allow.matchStar(req, false); rule != nil {
		return verdict{allowed: true, pending: pending, rule: rule, reason: reasonName}
	}
	if pending {
		if rule := r.allow.mayMatchAddr(req); rule != nil {
			return verdict{allowed: true, pending: true, rule: rule, reason: reasonMaybe}
		}
	}
	return r.unmatched(pending)
}

// unmatched is the decision about what no rule speaks of.
func (r *Rules) unmatched(pending bool) verdict {
	if r.audit {
		return verdict{allowed: true, pending: pending, audited: true, reason: reasonAudited}
	}
	return verdict{reason: reasonNone}
}

func (r *Rules) decideService(req *Request) verdict {
	if rule := r.deny.matchService(req); rule != nil {
		return verdict{rule: rule, reason: reasonDenied}
	}
	if rule := r.allow.matchService(req); rule != nil {
		return verdict{allowed: true, rule: rule, reason: reasonService}
	}
	switch {
	case req.Target.Service == "unix":
		return verdict{reason: reasonNoSocket}
	case r.open:
		return verdict{allowed: true, reason: reasonOpen}
	}
	return r.unmatched(false)
}

// deniedBy finds a deny rule for the service, the name, the address or an IPv4
// address inside it.
func (r *Rules) deniedBy(req *Request, addr netip.Addr) *rule {
	if rule := r.deny.matchService(req); rule != nil {
		return rule
	}
	if rule := r.deny.matchName(req); rule != nil {
		return rule
	}
	if rule := r.deny.matchStar(req, true); rule != nil {
		return rule
	}
	if !addr.IsValid() || len(r.deny.prefixes) == 0 {
		return nil
	}
	if rule := r.deny.matchAddr(req, addr); rule != nil {
		return rule
	}
	inner, n := embedded(addr)
	for _, v4 := range inner[:n] {
		if rule := r.deny.matchAddr(req, v4); rule != nil {
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
func newRules(r Rules, allow, deny []*rule) *Rules {
	allow, deny = normalize(allow), normalize(deny)
	r.allow, r.deny, r.source = newIndex(allow), newIndex(deny), canonicalSource(&r, allow, deny)
	return &r
}

func normalize(rules []*rule) []*rule {
	slices.SortStableFunc(rules, func(a, b *rule) int { return strings.Compare(a.source, b.source) })
	return slices.CompactFunc(rules, func(a, b *rule) bool { return a.source == b.source })
}

func canonicalSource(r *Rules, allow, deny []*rule) string {
	var b strings.Builder
	b.WriteString(keyRestrict + ": " + strconv.FormatBool(!r.open) + "\n")
	if r.audit {
		b.WriteString(keyAudit + ": true\n")
	}
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
	b.WriteString(r.kube.source())
	return b.String()
}
