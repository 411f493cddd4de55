package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/outgate/outgate/transport"
)

const defaultDialTimeout = 10 * time.Second

// Resolver turns a name into addresses; *net.Resolver is one. LookupNetIP must
// return soon after ctx ended and may be called concurrently.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer connects to what a policy allows, and to nothing else: it is the one door to
// the network for everything that a tunnel carries. For each dial it
//
//  1. asks the policy about the target as it was named,
//  2. resolves the name once,
//  3. asks the policy about every address of the answer, and refuses those of the
//     deny floor (see [Special] and Own) unless the policy is a [SpecialAllower] that
//     opens them. One refused address refuses the whole dial: an answer that mixes good
//     and bad ones is how a name is turned against its policy;
//  4. connects to the checked addresses themselves, at most 16 of them, the next one
//     when the last has failed or FallbackDelay has passed, in the order of the
//     resolver with the address families alternating (RFC 8305). The socket's
//     address is compared again before it connects.
//
// What does not connect a socket, an echo request or a datagram to many, asks [Dialer.Resolve]
// and sends to the addresses that it returns.
//
// The zero Dialer denies everything. The fields must not be changed after the first
// use; all methods may be called concurrently.
type Dialer struct {
	// Policy decides. Nil denies everything.
	Policy Policy

	// Own adds to the deny floor what only the program knows. It returns what an address
	// is to it, such as "own listener" or "gateway", and "" for all that are not its own;
	// the port is 0 for icmp. Nil adds nothing. It may be called concurrently.
	Own func(netip.AddrPort) (kind string)

	// Audit, if not nil, is told what a policy that is an [Auditor] let pass, at most
	// once for each call of a method. It may be called concurrently and must not block.
	Audit func(r Request, denied *Denied)

	// Resolver resolves names. Nil is net.DefaultResolver, with the search list and
	// the hosts file of the machine.
	Resolver Resolver

	// Timeout bounds the whole of one dial, with the resolver's part in it. Zero or
	// less is 10 seconds; an earlier deadline of ctx wins.
	Timeout time.Duration

	// FallbackDelay is how long an attempt is waited for before the next one starts
	// beside it. Zero or less is 250 ms.
	FallbackDelay time.Duration

	// Control, if not nil, is called as net.Dialer.Control is, after the address was
	// compared and before the socket connects: to mark the socket, or to count. An
	// error fails the attempt. It may be called concurrently.
	Control func(network, address string, c syscall.RawConn) error
}

// DialTarget connects to r.Target for "tcp", "http", "udp" and "unix"; r.Addr is
// not read. The caller closes the connection, which is a *net.TCPConn, *net.UDPConn
// or *net.UnixConn. ctx bounds the dial only.
//
// It returns a *[TargetError] when the target is not canonical or its service has
// nothing to dial, the policy's own error, normally a *[Denied], when that refuses,
// and otherwise a *[DialError].
func (d *Dialer) DialTarget(ctx context.Context, r Request) (net.Conn, error) {
	if r.Target.Service == "icmp" {
		return nil, newTargetError(r.Target.Service, r.Target.Address(), reasonNotDialed)
	}
	ctx, cancel := context.WithTimeout(ctx, positive(d.Timeout, defaultDialTimeout))
	defer cancel()
	addrs, err := d.resolve(ctx, r)
	if err != nil {
		return nil, err
	}
	var c net.Conn
	switch r.Target.Service {
	case "unix":
		c, err = d.attempt(ctx, "unix", r.Target.Path)
	case "udp":
		c, err = d.race(ctx, "udp", r.Target.Port, addrs)
	default:
		c, err = d.race(ctx, "tcp", r.Target.Port, addrs)
	}
	if err != nil {
		return nil, &DialError{Target: r.Target, Code: dialCode(err), Err: withCause(ctx, err)}
	}
	return c, nil
}

// Resolve does all of a dial but the connection: it returns the addresses that r.Target
// may be reached at now, in the order in which DialTarget would try them; r.Addr is not
// read. Send to these and to no others, and ask again the next time. The services are
// "tcp", "http", "udp" and "icmp"; the errors those of DialTarget.
func (d *Dialer) Resolve(ctx context.Context, r Request) ([]netip.Addr, error) {
	if r.Target.Service == "unix" {
		return nil, newTargetError(r.Target.Service, r.Target.Address(), reasonNotDialed)
	}
	ctx, cancel := context.WithTimeout(ctx, positive(d.Timeout, defaultDialTimeout))
	defer cancel()
	return d.resolve(ctx, r)
}

// Check asks again about something that was dialled or resolved before: about r.Target
// and, if r.Addr is valid, about that address. Nil still allows. It resolves nothing, and
// takes the services of [ParseTarget].
func (d *Dialer) Check(ctx context.Context, r Request) error {
	if reason := r.Target.check(); reason != "" {
		return newTargetError(r.Target.Service, r.Target.Address(), reason)
	}
	p := d.policy()
	name := r
	name.Addr = netip.Addr{}
	if err := p.Authorize(ctx, name); err != nil {
		return err
	}
	if !r.Addr.IsValid() {
		return nil
	}
	r.Addr = r.Addr.Unmap()
	return d.authorizeAddr(ctx, p, r)
}

func (d *Dialer) policy() Policy {
	if d.Policy == nil {
		return denyAll{}
	}
	return d.Policy
}

// resolve asks the policy about the target, looks it up and asks about each address.
// A unix socket has none.
func (d *Dialer) resolve(ctx context.Context, r Request) ([]netip.Addr, error) {
	r.Addr = netip.Addr{}
	t := r.Target
	reason := t.check()
	if reason == "" && !hasHost(t.Service) && t.Service != "unix" {
		reason = reasonNotDialed
	}
	if reason != "" {
		return nil, newTargetError(t.Service, t.Address(), reason)
	}
	p := d.policy()
	if err := p.Authorize(ctx, r); err != nil {
		return nil, err
	}
	audited := d.audit(p, r)
	if t.Service == "unix" {
		return nil, nil
	}
	addrs, err := d.lookup(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, r.Addr = range addrs {
		if err := d.authorizeAddr(ctx, p, r); err != nil {
			return nil, err
		}
		audited = audited || d.audit(p, r)
	}
	return alternate(addrs), nil
}

// audit reports what only an audit lets pass.
func (d *Dialer) audit(p Policy, r Request) bool {
	auditor, ok := p.(Auditor)
	if !ok || d.Audit == nil {
		return false
	}
	denied := auditor.WouldDeny(r)
	if denied != nil {
		d.Audit(r, denied)
	}
	return denied != nil
}

// withCause adds what ended the context.
func withCause(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if deadline, ok := ctx.Deadline(); ok && cause == nil && !time.Now().Before(deadline) {
		// A socket's timer may be ahead of that of its context.
		cause = context.DeadlineExceeded
	}
	if cause != nil && !errors.Is(err, cause) {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// lookup returns the addresses of the target, unmapped, each once.
func (d *Dialer) lookup(ctx context.Context, t Target) ([]netip.Addr, error) {
	if addr, ok := t.literal(); ok {
		return []netip.Addr{addr}, nil
	}
	resolver := d.Resolver
	if resolver == nil {
		resolver = net.DefaultResolver
	}
	answer, err := resolver.LookupNetIP(ctx, "ip", t.Host)
	if err != nil {
		code := resolveCode(err)
		switch ctx.Err() {
		case context.Canceled:
			code = transport.Canceled
		case context.DeadlineExceeded:
			code = transport.Timeout
		}
		return nil, &DialError{Target: t, Code: code, Err: withCause(ctx, err)}
	}
	addrs := make([]netip.Addr, 0, len(answer))
	for _, a := range answer {
		if !a.IsValid() {
			// The zero Addr would ask the policy about the name once more.
			return nil, &DialError{Target: t, Code: transport.Internal, Err: errors.New("the resolver returned an invalid address")}
		}
		if a = a.Unmap(); !slices.Contains(addrs, a) {
			addrs = append(addrs, a)
		}
	}
	if len(addrs) == 0 {
		return nil, &DialError{Target: t, Code: transport.NameNotFound, Err: errors.New("the resolver returned no address")}
	}
	return addrs, nil
}

// authorizeAddr asks about one address of the answer.
func (d *Dialer) authorizeAddr(ctx context.Context, p Policy, r Request) error {
	if r.Addr.Zone() != "" {
		return &Denied{Target: r.Target, Addr: r.Addr, Reason: reasonZone}
	}
	if err := p.Authorize(ctx, r); err != nil {
		return err
	}
	if denied := d.onFloor(p, r); denied != nil {
		return denied
	}
	return nil
}

// onFloor returns the denial of an address on the deny floor that p does not open.
func (d *Dialer) onFloor(p Policy, r Request) *Denied {
	kind, special := Special(r.Addr)
	if !special && d.Own != nil {
		kind = d.ownKind(r)
	}
	if kind == "" {
		return nil
	}
	if s, ok := p.(SpecialAllower); ok && s.AllowSpecial(r) {
		return nil
	}
	return &Denied{Target: r.Target, Addr: r.Addr, Reason: reasonSpecial(kind)}
}

// ownKind asks Own about the address and about the IPv4 addresses inside it.
func (d *Dialer) ownKind(r Request) string {
	if kind := d.Own(netip.AddrPortFrom(r.Addr, r.Target.Port)); kind != "" {
		return kind
	}
	inner, n := embedded(r.Addr)
	for _, v4 := range inner[:n] {
		if kind := d.Own(netip.AddrPortFrom(v4, r.Target.Port)); kind != "" {
			return kind
		}
	}
	return ""
}

func positive(d, zero time.Duration) time.Duration {
	return cmp.Or(max(d, 0), zero)
}
