package policy

import (
	"context"
	"errors"
	"net/netip"
)

// Explainer is a [Policy] that says why.
type Explainer interface {
	Policy
	// Explain decides as Authorize does.
	Explain(r Request) Decision
}

// Explanation is a dial that was not made, see [Dialer.Explain]. Its JSON is stable:
// names of fields are only added.
type Explanation struct {
	Target    string         `json:"target"`              // such as "tcp:db.internal:5432"
	Allowed   bool           `json:"allowed"`             // the dial would go out
	Asked     Decision       `json:"asked"`               // about the target as it was asked for
	Addresses []AddrDecision `json:"addresses,omitempty"` // about each address that it resolves to
	Error     string         `json:"error,omitempty"`     // why it is not resolved
}

// AddrDecision is the [Decision] about one address.
type AddrDecision struct {
	Addr netip.Addr `json:"address"`
	Decision
}

// Explain is a dry run: it asks and resolves as DialTarget does and says what it found
// about every address, without a connection and without a call of Audit. A policy that
// is no [Explainer] explains little.
func (d *Dialer) Explain(ctx context.Context, r Request) Explanation {
	r.Addr = netip.Addr{}
	e := Explanation{Target: r.Target.String()}
	if reason := r.Target.check(); reason != "" {
		e.Asked.Reason = reason
		return e
	}
	p := d.policy()
	e.Asked = explain(ctx, p, r)
	e.Allowed = e.Asked.Allowed
	if !e.Allowed || !hasHost(r.Target.Service) {
		return e
	}
	ctx, cancel := context.WithTimeout(ctx, positive(d.Timeout, defaultDialTimeout))
	defer cancel()
	addrs, err := d.lookup(ctx, r.Target)
	if err != nil {
		e.Allowed, e.Error = false, err.Error()
		return e
	}
	for _, r.Addr = range addrs {
		found := AddrDecision{Addr: r.Addr, Decision: d.explainAddr(ctx, p, r)}
		e.Allowed = e.Allowed && found.Allowed
		e.Addresses = append(e.Addresses, found)
	}
	return e
}

func (d *Dialer) explainAddr(ctx context.Context, p Policy, r Request) Decision {
	if r.Addr.Zone() != "" {
		return Decision{Reason: reasonZone}
	}
	found := explain(ctx, p, r)
	if !found.Allowed {
		return found
	}
	if denied := d.onFloor(p, r); denied != nil {
		return Decision{Reason: denied.Reason}
	}
	return found
}

func explain(ctx context.Context, p Policy, r Request) Decision {
	if e, ok := p.(Explainer); ok {
		return e.Explain(r)
	}
	err := p.Authorize(ctx, r)
	if err == nil {
		return Decision{Allowed: true, Pending: !r.Addr.IsValid() && r.pending(), Reason: "the policy allows it"}
	}
	found := Decision{Reason: err.Error()}
	if denied, ok := errors.AsType[*Denied](err); ok {
		found.Rule, found.Reason = denied.Rule, denied.Reason
	}
	return found
}

// pending reports whether the target is a name that must be resolved.
func (r *Request) pending() bool {
	_, literal := r.Target.literal()
	return hasHost(r.Target.Service) && !literal
}
