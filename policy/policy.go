package policy

import (
	"context"
	"fmt"
	"net/netip"

	"github.com/outgate/outgate/transport"
)

// Policy decides whether a stream may reach a target. The agent asks its policy
// for every stream before it resolves the name, and again for every address
// before it dials. Implementations must be safe for concurrent use and must not
// block: Authorize runs on the path of every stream.
type Policy interface {
	// Authorize returns nil to allow. An error denies; a *[Denied] also says by
	// which rule and why.
	Authorize(ctx context.Context, r Request) error
}

// Request is one question to a [Policy].
type Request struct {
	Subject string            // on whose behalf; as the gateway says, which is not proof
	Agent   string            // the agent that would dial
	Target  Target            // what is asked for
	Addr    netip.Addr        // the address about to be dialled; the zero Addr before resolution
	Labels  map[string]string // of the agent
}

// SpecialAllower is a [Policy] that can open single addresses of the deny floor
// (see [Special] and Own of [Dialer]). The [Dialer] refuses every address on it to a
// policy that does not implement this.
type SpecialAllower interface {
	Policy
	// AllowSpecial reports whether r.Addr may be dialled although it is on the floor.
	AllowSpecial(r Request) bool
}

// Auditor is a [Policy] that lets some of its denials pass and reports them instead,
// as [Rules] with audit_only does.
type Auditor interface {
	Policy
	// WouldDeny returns the denial of r that Authorize lets pass, or nil.
	WouldDeny(r Request) *Denied
}

// Digester is a [Policy] that can be recognised: equal digests decide alike.
type Digester interface {
	Policy
	// Digest is "sha256:" and 64 hexadecimal digits, or another text of at most 128
	// bytes.
	Digest() string
}

// Changer is a [Policy] that may come to decide differently while it is in use, as a
// [File] does.
type Changer interface {
	Policy
	// OnChange has f called after each change, until stop is called; a call that has
	// begun by then goes on. f may be called concurrently and must not block.
	OnChange(f func()) (stop func())
}

// Func makes a function a [Policy].
type Func func(ctx context.Context, r Request) error

// Authorize calls f.
func (f Func) Authorize(ctx context.Context, r Request) error { return f(ctx, r) }

// Denied says that a policy refused a request.
type Denied struct {
	Rule   string // the rule that decided; empty when no rule matched
	Reason string
	Target Target
	Addr   netip.Addr // the address that was refused; the zero Addr when the name was
}

func (e *Denied) Error() string {
	s := fmt.Sprintf("policy: %s denied: %s", e.Target, e.Reason)
	if e.Addr.IsValid() {
		s = fmt.Sprintf("policy: %s denied at %s: %s", e.Target, e.Addr, e.Reason)
	}
	if e.Rule != "" {
		s += fmt.Sprintf(" (rule %q)", e.Rule)
	}
	return s
}

// Is matches transport.Denied, the code that the other side of the stream sees.
func (e *Denied) Is(target error) bool { return target == error(transport.Denied) }
