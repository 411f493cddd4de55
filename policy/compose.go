package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
)

// All allows what every one of the policies allows; the first error denies. It opens
// an address of the deny floor only if each of them is a [SpecialAllower] that opens
// it, so a [Dialer] with All(p, q) reaches exactly what one with p and one with q
// both reach. Without policies, or with a nil one, it denies everything. All keeps a
// copy of the list.
//
// The result is an [Auditor] and a [Changer] for those of the policies that are, and a
// [Digester] whose digest is of all of theirs: a policy without one counts by its place
// alone.
func All(policies ...Policy) SpecialAllower {
	return all(append([]Policy(nil), policies...))
}

type all []Policy

var (
	_ Auditor  = all(nil)
	_ Changer  = all(nil)
	_ Digester = all(nil)
)

func (a all) Authorize(ctx context.Context, r Request) error {
	if len(a) == 0 {
		return denyAll{}.Authorize(ctx, r)
	}
	for _, p := range a {
		if p == nil {
			return denyAll{}.Authorize(ctx, r)
		}
		if err := p.Authorize(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

func (a all) AllowSpecial(r Request) bool {
	for _, p := range a {
		if s, ok := p.(SpecialAllower); !ok || !s.AllowSpecial(r) {
			return false
		}
	}
	return len(a) > 0
}

func (a all) WouldDeny(r Request) *Denied {
	for _, p := range a {
		if auditor, ok := p.(Auditor); ok {
			if denied := auditor.WouldDeny(r); denied != nil {
				return denied
			}
		}
	}
	return nil
}

func (a all) OnChange(f func()) (stop func()) {
	var stops []func()
	for _, p := range a {
		if c, ok := p.(Changer); ok {
			stops = append(stops, c.OnChange(f))
		}
	}
	return func() {
		for _, stop := range stops {
			stop()
		}
	}
}

func (a all) Digest() string {
	sum := sha256.New()
	for _, p := range a {
		if d, ok := p.(Digester); ok {
			sum.Write([]byte(d.Digest()))
		}
		sum.Write([]byte{'\n'})
	}
	return "sha256:" + hex.EncodeToString(sum.Sum(nil))
}

// DenyAll denies everything, as a nil Policy does in this library.
func DenyAll() Policy { return denyAll{} }

type denyAll struct{}

func (denyAll) Authorize(_ context.Context, r Request) error {
	return &Denied{Target: r.Target, Addr: r.Addr, Reason: "no policy allows anything; configure one"}
}

// InsecureAllowAll allows everything and opens the whole deny floor: the agent's
// loopback, its unix sockets and its cloud's credentials. It is for tests and
// demonstrations.
func InsecureAllowAll() SpecialAllower { return insecureAllowAll{} }

type insecureAllowAll struct{}

func (insecureAllowAll) Authorize(context.Context, Request) error { return nil }
func (insecureAllowAll) AllowSpecial(Request) bool                { return true }
