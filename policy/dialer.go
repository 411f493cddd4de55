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

const (
	defaultDialTimeout   = 10 * time.Second
	defaultFallbackDelay = 250 * time.Millisecond // RFC 8305 section 5
	maxAttempts          = 16
)

// Resolver turns a name into addresses; *net.Resolver is one. LookupNetIP must
// return soon after ctx ended and may be called concurrently.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// Dialer connects to what a policy allows, and to nothing else. For each dial it
//
//  1. asks the policy about the target as it was named,
//  2. resolves the name once,
//  3. asks the policy about every address of the answer, and refuses those of the
//     deny floor (see [Special]) unless the policy is a [SpecialAllower] that opens
//     them. One refused address refuses the whole dial: an answer that mixes good
//     and bad ones is how a name is turned against its policy;
//  4. connects to the checked addresses themselves, at most 16 of them, the next one
//     when the last has failed or FallbackDelay has passed, in the order of the
//     resolver with the address families alternating (RFC 8305). The socket's
//     address is compared again before it connects.
//
// The zero Dialer denies everything. The fields must not be changed after the first
// dial; DialTarget may be called concurrently.
type Dialer struct {
	// Policy decides. Nil denies everything.
	Policy Policy

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
	r.Addr = netip.Addr{}
	t := r.Target
	reason := t.check()
	if reason == "" && !hasHostPort(t.Service) && t.Service != "unix" {
		reason = reasonNotDialed
	}
	if reason != "" {
		return nil, newTargetError(t.Service, t.Address(), reason)
	}
	p := d.Policy
	if p == nil {
		p = denyAll{}
	}
	ctx, cancel := context.WithTimeout(ctx, positive(d.Timeout, defaultDialTimeout))
	defer cancel()
	if err := p.Authorize(ctx, r); err != nil {
		return nil, err
	}
	if t.Service == "unix" {
		c, err := d.attempt(ctx, "unix", t.Path)
		return d.result(ctx, t, c, err)
	}
	addrs, err := d.resolve(ctx, t)
	if err != nil {
		return nil, err
	}
	for _, r.Addr = range addrs {
		if err := authorizeAddr(ctx, p, r); err != nil {
			return nil, err
		}
	}
	network := "tcp"
	if t.Service == "udp" {
		network = "udp"
	}
	c, err := d.race(ctx, network, t.Port, alternate(addrs))
	return d.result(ctx, t, c, err)
}

func (d *Dialer) result(ctx context.Context, t Target, c net.Conn, err error) (net.Conn, error) {
	if err == nil {
		return c, nil
	}
	return nil, &DialError{Target: t, Code: dialCode(err), Err: withCause(ctx, err)}
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

// resolve returns the addresses of the target, unmapped, each once.
func (d *Dialer) resolve(ctx context.Context, t Target) ([]netip.Addr, error) {
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
func authorizeAddr(ctx context.Context, p Policy, r Request) error {
	if r.Addr.Zone() != "" {
		return &Denied{Target: r.Target, Addr: r.Addr, Reason: reasonZone}
	}
	if err := p.Authorize(ctx, r); err != nil {
		return err
	}
	if kind, special := Special(r.Addr); special {
		if s, ok := p.(SpecialAllower); !ok || !s.AllowSpecial(r) {
			return &Denied{Target: r.Target, Addr: r.Addr, Reason: reasonSpecial(kind)}
		}
	}
	return nil
}

// alternate puts the address families in turns, each in the order of the resolver,
// that of the first address first (RFC 8305 section 4).
func alternate(addrs []netip.Addr) []netip.Addr {
	var families [2][]netip.Addr
	for _, a := range addrs {
		i := 0
		if a.Is4() != addrs[0].Is4() {
			i = 1
		}
		families[i] = append(families[i], a)
	}
	turns := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(families[0]), len(families[1])) {
		for _, f := range families {
			if i < len(f) {
				turns = append(turns, f[i])
			}
		}
	}
	return turns[:min(len(turns), maxAttempts)]
}

// race connects to the first address that answers. It returns when all attempts it
// started have ended.
func (d *Dialer) race(ctx context.Context, network string, port uint16, addrs []netip.Addr) (net.Conn, error) {
	if len(addrs) == 1 {
		return d.attempt(ctx, network, netip.AddrPortFrom(addrs[0], port).String())
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		c   net.Conn
		err error
	}
	outcomes := make(chan outcome)
	delay := positive(d.FallbackDelay, defaultFallbackDelay)
	stagger := time.NewTimer(0)
	defer stagger.Stop()

	var won net.Conn
	errs := make(attemptErrors, 0, len(addrs))
	for started, running := 0, 0; running > 0 || won == nil && started < len(addrs); {
		next := stagger.C
		if won != nil || started == len(addrs) {
			next = nil
		}
		select {
		case <-next:
			address := netip.AddrPortFrom(addrs[started], port).String()
			started++
			running++
			stagger.Reset(delay)
			go func() {
				c, err := d.attempt(ctx, network, address)
				outcomes <- outcome{c, err}
			}()
		case o := <-outcomes:
			running--
			switch {
			case o.err != nil:
				errs = append(errs, o.err)
				stagger.Reset(0)
			case won == nil:
				won = o.c
				cancel()
			default:
				_ = o.c.Close()
			}
		}
		if ctx.Err() != nil {
			stagger.Stop()
			started = len(addrs)
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, errs
}

// attempt connects to one checked address, an IP literal with port or a path.
func (d *Dialer) attempt(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := net.Dialer{
		FallbackDelay: -1,
		Control: func(network, actual string, c syscall.RawConn) error {
			if !sameSocket(network, actual, address) {
				return fmt.Errorf("policy: the socket would connect to %s, which was not checked", actual)
			}
			if d.Control == nil {
				return nil
			}
			return d.Control(network, actual, c)
		},
	}
	return dialer.DialContext(ctx, network, address)
}

// sameSocket compares values: an address that is not a literal is never the same.
func sameSocket(network, actual, checked string) bool {
	if network == "unix" {
		return actual == checked
	}
	a, errActual := netip.ParseAddrPort(actual)
	c, errChecked := netip.ParseAddrPort(checked)
	return errActual == nil && errChecked == nil && a == c
}

func positive(d, zero time.Duration) time.Duration {
	return cmp.Or(max(d, 0), zero)
}
