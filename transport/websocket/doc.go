// Package websocket carries a tunnel over one HTTPS connection: mutual TLS 1.3,
// one WebSocket, and many streams inside it. It passes the proxies and load
// balancers that let WebSockets through, and shares port 443 with other routes.
//
// An agent dials with its certificate:
//
//	d := &websocket.Dialer{
//		TLSClientConfig: &tls.Config{Certificates: certs, RootCAs: roots},
//		Proxy:           http.ProxyFromEnvironment,
//	}
//	m, err := d.Dial(ctx, "https://gateway.example.com")
//
// A gateway either owns the socket,
//
//	l, err := websocket.Listen(":443", tlsConfig, websocket.Config{})
//
// or mounts the listener in an http.Server that it has anyway:
//
//	l := websocket.NewListener(websocket.Config{})
//	routes.Handle(websocket.Path, l)
//	server := &http.Server{Handler: routes, TLSConfig: tlsConfig}
//	err = server.ServeTLS(l.Guard(server, socket), "", "")
//
// and then calls Accept.
//
// # Load balancers and proxies
//
// The mutual TLS is around the WebSocket, end to end: forward proxies pass it
// through with CONNECT or SOCKS5 (Dialer.Proxy), load balancers pass it through by
// SNI. Where something between ends the TLS, it moves inside the WebSocket:
// Dialer.OuterTLS at the agent and Config.InnerTLS at the gateway, always both. The
// two forms have different subprotocols, and a Listener takes one of them; a
// gateway that wants both mounts two Listeners, one under a prefix of its own.
//
// A balancer that drops connections without traffic must wait longer than the
// pings of the tunnel, 15 s when idle. (nginx: proxy_read_timeout and
// proxy_send_timeout, 60 s by default; haproxy: timeout tunnel.)
//
// # On the wire
//
// The peers agree on one of two WebSocket subprotocols at [Path], or four, as they
// differ where the mutual TLS is inside; see [Multiplexer]. Binary messages carry
// the frames of one of two multiplexers, which keep the same promises and the same
// limits:
//
// Native is that of this project. It has a frame for each thing that a stream can
// say, credit for each stream and none for the connection.
//
// Smux is a byte stream of smux version 2 frames. Stream 0, which smux leaves
// unused, carries what smux lacks: how many streams the peer may open, the end of a
// direction with its byte count, and resets with a code. The library xtaci/smux
// keeps the streams and their receive buffers. What a frame may say is checked
// before smux sees it, and data is sent past its write path, which can neither be
// interrupted by a deadline nor close without waiting.
//
// # Limits
//
// A peer that oversteps a limit of [Config] or breaks the protocol loses its
// connection with the code Protocol, and nobody else notices. What a connection
// may buffer is at most MaxStreams × 16 KiB + WindowBudget over Native, and over
// Smux MaxStreams × 256 KiB + WindowBudget, in buffers that can be twice as large
// as their content. Who has not shown yet who he is costs a place among
// Config.MaxHandshakes, for Config.HandshakeTimeout at most. How many streams a
// second a peer may open is limited by the tunnel.
//
// # Not here
//
// Liveness: a connection whose peer is silent is found by the pings of the
// tunnel; this package only ends a connection that takes no data for
// Config.WriteTimeout, and asks the kernel for keep-alives. Authorisation: every
// verified certificate may connect. Identity from header fields. Environment
// variables.
package websocket
