package policy

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

const (
	defaultFallbackDelay = 250 * time.Millisecond // RFC 8305 section 5
	maxAttempts          = 16
)

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
	return turns
}

// race connects to the first address that answers. It returns when all attempts it
// started have ended.
func (d *Dialer) race(ctx context.Context, network string, port uint16, addrs []netip.Addr) (net.Conn, error) {
	addrs = addrs[:min(len(addrs), maxAttempts)]
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
