package websocket

import (
	"crypto/tls"
	"log/slog"
	"time"
)

const (
	// Path is where a gateway serves the tunnel. A Dialer appends it to the
	// path of the base URL.
	Path = "/outgate/v1/tunnel"

	// NativeSubprotocol names the protocol inside the WebSocket over the
	// multiplexer Native.
	NativeSubprotocol = "outgate.mux.v1"

	// Subprotocol names that over the multiplexer Smux.
	Subprotocol = "outgate.smux.v1"

	// InnerNativeSubprotocol and InnerSubprotocol name the same inside a mutual
	// TLS of its own: see Dialer.OuterTLS.
	InnerNativeSubprotocol = "outgate.tls.mux.v1"

	// InnerSubprotocol is that over Smux.
	InnerSubprotocol = "outgate.tls.smux.v1"
)

// Multiplexer is how one connection carries many streams.
type Multiplexer int

// The multiplexers. Both keep the promises of a transport.
const (
	AnyMultiplexer Multiplexer = iota // Native if the peer has it, or else Smux
	Native                            // that of this project
	Smux                              // the frames of smux version 2, with records beside them
)

// Config holds the limits of a [Dialer] or a [Listener]. The zero value is ready
// to use; a field that is zero or negative means its default. It is copied when
// the Listener is made or Dial is called.
type Config struct {
	// MaxStreams is how many streams the peer may have open toward this side at
	// a time, accepted or not. The peer's OpenStream waits for a free one.
	// Default 1024.
	MaxStreams int

	// Multiplexer is what this side speaks. Both sides must have it: a Dialer
	// offers it, or both, and a Listener chooses Native if both were offered. Zero
	// is AnyMultiplexer.
	Multiplexer Multiplexer

	// MaxWindow is how many bytes one stream may buffer while its reader keeps
	// up. A stream starts with 256 KiB, or with less over Native when the budgets
	// are used up, and doubles when the peer uses all of it. Default and most
	// 16 MiB.
	MaxWindow int

	// WindowBudget is how many bytes the windows of a connection may have beyond
	// their least, all together. The least is 256 KiB with Smux and 16 KiB with
	// Native, where the rest of the first 256 KiB counts here too. Default 32 MiB.
	WindowBudget int

	// Budget limits the same for all connections that share it, be they of one
	// Listener or of several. Nil is no such limit.
	Budget *Budget

	// WriteTimeout is how long the network may take to accept one message, of
	// up to 128 KiB. Then the connection ends with the code Timeout. On Linux
	// half as long again is also how long the kernel waits for the peer to
	// acknowledge what it was sent. Default 10 s.
	WriteTimeout time.Duration

	// HandshakeTimeout is how long a connection may take until it is ready for
	// streams: at a Dialer from the first packet on, default 10 s; at a Listener
	// from accept on, default 5 s. (Mounted in a server without [Listener.Guard],
	// from the WebSocket upgrade on.)
	HandshakeTimeout time.Duration

	// MaxHandshakes is how many connections a Listener has at a time that have not
	// shown whose they are: in the TLS handshake, the HTTP request or the upgrade,
	// or waiting for that because of MaxHandshakesPerSource. When all places are
	// taken, a source that is at its own limit is refused, by a close without a
	// word; for others the source with the most loses one that waits, or its
	// oldest. Default 1024. A Dialer does not use it, nor does a mounted Listener
	// without [Listener.Guard].
	MaxHandshakes int

	// MaxHandshakesPerSource is how many of them may be under way for one source,
	// which is an address of IPv4 or a /64 of IPv6. More of them wait for their
	// turn, within HandshakeTimeout. Behind a load balancer that hides its clients
	// everything has one source: set it to MaxHandshakes there. Default 32. Used
	// like MaxHandshakes.
	MaxHandshakesPerSource int

	// Backlog is how many connections a Listener keeps that are past the HTTP
	// request and wait for the end of their handshake or for Accept. Another one
	// is answered 503 with a Retry-After of 1 to 5 seconds at random. Default 1024.
	// A Dialer does not use it.
	Backlog int

	// InnerTLS makes a Listener take tunnels whose mutual TLS is inside the
	// WebSocket, and no others, so that the outer TLS may end at a load balancer
	// or an inspecting proxy; agents set Dialer.OuterTLS. It holds what the
	// argument of Listen does otherwise: the gateway's certificate and, in
	// ClientCAs, the authority of the agents. It is copied; the copy demands TLS
	// 1.3 and a verified client certificate and issues no session tickets.
	// Identity and ConnectionState are those of the inner TLS; X-Forwarded-For and
	// its like are never looked at. Nil means that the mutual TLS ends at this
	// server. A Dialer does not use it.
	InnerTLS *tls.Config

	// AllowPlainHTTP, with InnerTLS only, also takes requests that come without
	// an outer TLS, from a balancer in front of this process. They are as safe as
	// others, but whoever is on the way sees that this is a tunnel and can cut
	// it. A Dialer does not use it.
	AllowPlainHTTP bool

	// Logger is told by a Listener which requests it refused and why, in 20 lines
	// within ten seconds at most. Nil is silent. A Dialer does not use it; its
	// errors say it all.
	Logger *slog.Logger
}

const (
	initialWindow  = 256 << 10 // smux version 2 starts with this, whatever is configured
	largestWindow  = 1 << 30
	maxFrame       = 32 << 10
	maxMessage     = 128 << 10
	maxHeader      = 16 << 10                // of an HTTP request or answer
	closeTimeout   = 1500 * time.Millisecond // for the last data and the close handshake
	maxCloseReason = 120
)

// withDefaults returns a copy without zero fields.
func (c Config) withDefaults(handshake time.Duration) Config {
	c.MaxStreams = min(or(c.MaxStreams, 1024), 1<<30)
	c.MaxWindow = min(max(or(c.MaxWindow, 16<<20), initialWindow), 16<<20)
	c.WindowBudget = or(c.WindowBudget, 32<<20)
	c.WriteTimeout = or(c.WriteTimeout, 10*time.Second)
	c.HandshakeTimeout = or(c.HandshakeTimeout, handshake)
	c.MaxHandshakes = or(c.MaxHandshakes, 1024)
	c.MaxHandshakesPerSource = or(c.MaxHandshakesPerSource, 32)
	c.Backlog = or(c.Backlog, 1024)
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// or returns v, or what stands for a v that is not positive.
func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}
