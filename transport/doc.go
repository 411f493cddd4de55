// Package transport defines what carries a tunnel: a [Mux] is one
// authenticated connection between an agent and a gateway, a [Stream] is one
// net.Conn inside it.
//
// The implementations are leaves that a program picks by importing them:
//
//	transport/websocket   one HTTPS port; passes proxies and load balancers
//	transport/quic        UDP; survives loss without head-of-line blocking
//	transport/mem         in process; runs inside testing/synctest
//
// All of them pass the suite in transport/transporttest, which a third
// implementation can run too.
//
// # What every Mux promises
//
// A stream ends truthfully. Read returns io.EOF only after the peer called
// CloseWrite or Close and every byte arrived. Anything else that ends a stream
// is an error: *[StreamError] when one side reset the stream, *[CloseError] when
// the connection under it ended.
//
// One bad stream hurts itself only. A stream whose reader has stopped delays
// neither the other streams nor the opening of a new one.
//
// Memory is bounded. An implementation names its limits in its configuration
// and closes a connection whose peer oversteps them.
//
// # Not here
//
// Who may connect is decided by TLS and the gateway, where a stream may go by
// the policy of the agent. This package knows neither agents nor targets; see
// package tunnel.
package transport
