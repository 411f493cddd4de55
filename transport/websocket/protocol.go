package websocket

import (
	"context"
	"crypto/tls"
	"net/http"
	"strings"
	"time"

	"github.com/outgate/outgate/transport"
)

// protocol is what the peers speak inside the WebSocket. They agree on one by its
// subprotocol.
type protocol struct {
	subprotocol string

	// start makes a connection of a carrier that nobody has used. A client has
	// measured the round trip; a server has not, and passes 0.
	start func(c carrier, client bool, rtt time.Duration, state tls.ConnectionState, cfg Config) (session, error)
}

// session is a connection from its start.
type session interface {
	transport.Mux

	// awaitReady waits until the peer has started too. When ctx ends before
	// that, the connection ends with code.
	awaitReady(ctx context.Context, code func() transport.Code) error
}

// protocols returns what this package speaks, the best first: inside a TLS of its
// own, or in the WebSocket itself. The names differ, so that neither peer takes
// one for the other.
func protocols(inner bool) []protocol {
	overNative, overSmux := NativeSubprotocol, Subprotocol
	if inner {
		overNative, overSmux = InnerNativeSubprotocol, InnerSubprotocol
	}
	return []protocol{
		{overNative, func(c carrier, client bool, _ time.Duration, state tls.ConnectionState, cfg Config) (session, error) {
			return newNative(c, client, state, cfg), nil
		}},
		{overSmux, func(c carrier, client bool, rtt time.Duration, state tls.ConnectionState, cfg Config) (session, error) {
			return newMux(c, client, rtt, state, cfg)
		}},
	}
}

// protocols returns those that the configuration allows.
func (c Config) protocols(inner bool) []protocol {
	all := protocols(inner)
	switch c.Multiplexer {
	case Native:
		return all[:1]
	case Smux:
		return all[1:]
	default:
		return all
	}
}

// subprotocols returns the names of protocols, in their order.
func subprotocols(from []protocol) []string {
	names := make([]string, len(from))
	for i, p := range from {
		names[i] = p.subprotocol
	}
	return names
}

// agreed returns the protocol of a subprotocol that the handshake has settled on.
func agreed(from []protocol, subprotocol string) (protocol, bool) {
	for _, p := range from {
		if p.subprotocol == subprotocol {
			return p, true
		}
	}
	return protocol{}, false
}

// offered reports whether the client lists one of the protocols.
func offered(h http.Header, from []protocol) bool {
	for _, list := range h["Sec-Websocket-Protocol"] {
		for one := range strings.SplitSeq(list, ",") {
			if _, ok := agreed(from, strings.TrimSpace(one)); ok {
				return true
			}
		}
	}
	return false
}
