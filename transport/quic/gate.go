package quic

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"

	"github.com/quic-go/quic-go"
)

// gate counts the handshakes that are under way and keeps them few.
type gate struct {
	log        *slog.Logger
	retryAbove int // unvalidated handshakes; negative: validate every address
	max        int

	mu          sync.Mutex
	shut        bool // nobody gets in any more
	unvalidated int  // of those under way, from addresses that may be forged
	total       int
	attempts    sync.WaitGroup
}

var errRefused = errors.New("quic: the gate is full or shut")

// attempt is one handshake.
type attempt struct {
	gate      *gate
	validated bool
	stop      func() bool // ends the watch for failure
	once      sync.Once
}

type attemptKey struct{}

// validate reports whether a client has to prove that it receives at its
// address, with a Retry (RFC 9000, section 8.1.2).
func (g *gate) validate(net.Addr) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.retryAbove < 0 || g.unvalidated >= g.retryAbove
}

// enter begins an attempt. ctx is the connection's; it ends when the handshake
// fails.
func (g *gate) enter(ctx context.Context, info *quic.ClientInfo) (context.Context, error) {
	a := &attempt{gate: g, validated: info.AddrVerified}
	if !g.count(a) {
		return nil, errRefused
	}
	a.stop = context.AfterFunc(ctx, func() {
		a.leave()
		g.log.Debug("quic: handshake failed", "remote", info.RemoteAddr.String(), "err", context.Cause(ctx))
	})
	return context.WithValue(ctx, attemptKey{}, a), nil
}

func (g *gate) count(a *attempt) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.shut || g.total >= g.max {
		return false
	}
	g.total++
	if !a.validated {
		g.unvalidated++
	}
	g.attempts.Add(1)
	return true
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
		a.gate.mu.Lock()
		defer a.gate.mu.Unlock()
		a.gate.total--
		if !a.validated {
			a.gate.unvalidated--
		}
		a.gate.attempts.Done()
	})
}
