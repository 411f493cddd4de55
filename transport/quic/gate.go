package quic

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"

	"github.com/quic-go/quic-go"
)

// gate counts the handshakes that are under way and keeps them few, in all and
// from each source.
type gate struct {
	log          *slog.Logger
	retryAbove   int // unvalidated handshakes; negative: validate every address
	max          int
	maxPerSource int

	mu          sync.Mutex
	shut        bool // nobody gets in any more
	unvalidated int  // of those under way, from addresses that may be forged
	total       int
	sources     map[netip.Prefix]*source // those that have a handshake under way
	attempts    sync.WaitGroup
}

// source is a network whose handshakes count together.
type source struct{ unvalidated, total int }

// sourceOf returns the network of an address: what one machine can have all
// addresses of. It is the zero Prefix for an address that is not IP.
func sourceOf(a net.Addr) netip.Prefix {
	udp, ok := a.(*net.UDPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := udp.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	network, _ := ip.Prefix(bits) // fails for the zero Addr alone
	return network
}

var errShut = errors.New("quic: the listener is closed")

// attempt is one handshake.
type attempt struct {
	gate      *gate
	source    netip.Prefix
	validated bool
	stop      func() bool // ends the watch for failure
	once      sync.Once
}

type attemptKey struct{}

// validate reports whether a client has to prove that it receives at its
// address, with a Retry (RFC 9000, section 8.1.2).
func (g *gate) validate(from net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retryAbove < 0 || g.unvalidated >= g.retryAbove {
		return true
	}
	// Forged packets get a quarter of what their victim may have, so that they do
	// not lock it out.
	s := g.sources[sourceOf(from)]
	return s != nil && s.unvalidated >= g.maxPerSource/4
}

// enter begins an attempt. ctx is the connection's; it ends when the handshake
// fails.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a := &attempt{gate: g, source: sourceOf(info.RemoteAddr), validated: info.AddrVerified}
	if err := g.count(a); err != nil {
		g.log.Debug("quic: handshake refused", "remote", info.RemoteAddr.String(), "err", err)
		return nil, err
	}
	a.stop = context.AfterFunc(ctx, func() {
		a.leave()
		g.log.Debug("quic: handshake failed", "remote", info.RemoteAddr.String(), "err", context.Cause(ctx))
	})
	return context.WithValue(ctx, attemptKey{}, a), nil
}

func (g *gate) count(a *attempt) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut {
		return errShut
	}
	if g.total >= g.max {
		return fmt.Errorf("quic: %d handshakes are under way; the limit is ListenConfig.MaxHandshakes, %d", g.total, g.max)
	}
	s := g.sources[a.source]
	if s == nil {
		s = new(source)
	}
	if s.total >= g.maxPerSource && a.source.IsValid() {
		return fmt.Errorf("quic: %d handshakes are under way from %s; the limit is ListenConfig.MaxHandshakesPerSource, %d", s.total, a.source, g.maxPerSource)
	}
	g.sources[a.source] = s
	g.total++
	s.total++
	if !a.validated {
		g.unvalidated++
		s.unvalidated++
	}
	g.attempts.Add(1)
	return nil
}

// close makes enter refuse.
func (g *gate) close() {
	g.mu.Lock()
	g.shut = true
	g.mu.Unlock()
}

// succeeded ends the attempt of a connection whose handshake is complete.
func (g *gate) succeeded(conn *quic.Conn) {
	if a, ok := conn.Context().Value(attemptKey{}).(*attempt); ok && a.stop() {
		a.leave()
	}
}

func (a *attempt) leave() {
	a.once.Do(func() {
		g := a.gate
		g.mu.Lock()
		defer g.mu.Unlock()
		s := g.sources[a.source]
		g.total--
		s.total--
		if !a.validated {
			g.unvalidated--
			s.unvalidated--
		}
		if s.total == 0 {
			delete(g.sources, a.source)
		}
		g.attempts.Done()
	})
}
