// Package quic carries a tunnel over QUIC (RFC 9000): UDP, TLS 1.3, and a lost
// packet that delays only the streams whose data it held.
//
//	listener, err := quic.Listen(":443", tlsConfig, quic.ListenConfig{}) // gateway
//	gateway, err := listener.Accept(ctx)
//
//	dialer := &quic.Dialer{TLSClientConfig: tlsConfig}     // agent
//	agent, err := dialer.Dial(ctx, "https://gateway.example.com")
//
// Both sides authenticate each other with certificates, always. The ALPN
// protocol is "outgate/1". There is no 0-RTT and no session resumption.
//
// # Streams
//
// A stream of a tunnel is a bidirectional QUIC stream. Its codes travel as they
// are, in RESET_STREAM and STOP_SENDING. The peer learns of a stream from its
// first byte, its end or its reset.
//
// # Memory
//
// [Config] names what a peer can make this side hold. The limits are QUIC's own
// flow control; a peer that oversteps them loses its connection and nobody else
// notices. Streams whose reader has stopped do not slow down others: the
// connection's window is as large as what all stalled streams can hold; see
// [Config].ConnectionWindow.
//
// The limits count bytes of payload. What a byte costs that waits for its reader is
// the peer's choice: one or two in large frames, about 165 in frames of one byte,
// which the QUIC implementation keeps as they came. A hostile peer with a certificate
// makes 16 MiB on 1024 fresh streams that nobody reads cost more than 2 GiB that way,
// and more on streams whose readers stop later, as far as ConnectionWindow allows.
// For peers that are not trusted with that, lower MaxStreams and StreamWindow.
//
// A thousand streams that are stalled in the middle of a Write slow down the healthy
// ones of their connection: the QUIC implementation looks at each of them for every
// packet.
//
// # The end of a connection
//
// What has arrived is delivered before the error, however a connection ends: the
// streams take over what QUIC would throw away, no more than their windows, and
// keep it until they are closed.
//
// CloseWithError takes one round trip: this side says goodbye on a control
// stream, the peer ends its Mux, receives what is under way, and closes the QUIC
// connection. Both waits end after a second. Calls on the side that closes fail at
// once. There is no goodbye, and what the peer has not read is lost, when a peer of
// another make closes the QUIC connection without one; and a side that gives up on a
// silent peer with [transport.Timeout] waits for half a second only.
//
// A link that is down, a missing route or a firewall in the way is silence, which
// a connection survives for as long as [Config].IdleTimeout lets it.
//
// # Sockets
//
// The kernel's buffers for a socket are raised to 7 MiB, or as far as
// net.core.rmem_max and wmem_max allow; smaller ones lose packets at high speed.
//
// # Not here
//
// Networks that drop UDP: use package websocket there. Migration to another
// address, datagrams and HTTP/3 are not offered. Which agent may connect is
// decided by the TLS configuration, and by the gateway after Accept.
package quic
