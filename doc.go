// Package outgate is the front page of a library for outbound agent tunnels: an
// agent inside a private network dials out to a gateway, and through that connection
// the gateway's owner reaches what the agent's owner allows. Products embed both ends.
// This package itself holds no code.
//
// # The pieces
//
//   - [github.com/outgate/outgate/tunnel]: Agent, Gateway and Session. Start here.
//   - [github.com/outgate/outgate/policy]: what an agent may reach, and the dialer that
//     holds it to that.
//   - [github.com/outgate/outgate/pki]: one-time tokens, certificates, renewal,
//     revocation.
//   - [github.com/outgate/outgate/transport]: what carries a tunnel; websocket, quic and
//     mem below it are the carriers, transporttest is their suite.
//
// The agent:
//
//	agent := &tunnel.Agent{
//		Gateways: []string{"https://gateway.example.com"},
//		Dialers:  []transport.Dialer{&websocket.Dialer{GetTLSClientConfig: identity.ClientTLS}},
//		Policy:   rules,
//	}
//	err := agent.Run(ctx)
//
// The gateway:
//
//	gateway := &tunnel.Gateway{Identify: pki.AgentName}
//	go gateway.Serve(ctx, listener)
//	conn, err := gateway.Dialer("agent-1", "alice")(ctx, "tcp", "db.internal:5432")
//
// # Life of a connection
//
// A token is exchanged for a certificate, once. The agent dials, TLS 1.3 proves both
// sides, hello and welcome follow. The gateway opens streams; each names a service, an
// address and a subject. The agent asks its policy, resolves, asks again about every
// address, dials one of those and answers; only then do bytes flow. When the connection
// breaks, streams end with an error and the agent comes back by itself.
//
// # Trust
//
// The agent trusts the gateway for routing and availability only. A hostile gateway
// gets at most what the agent's policy allows, in clear text where the protocol inside
// is clear text. A hostile agent can lie about its own network and nothing else. An
// identity is a verified certificate, never a message.
//
// # Compatibility
//
// The two latest releases of Go. Before version 1 a minor version may break the Go API;
// the changelog says how. On the wire, a version talks to the one before it; the major
// version is part of the ALPN and the WebSocket subprotocol.
//
// # Not here
//
// No VPN, no public ingress service, no remote shell. The reference gateway and agent,
// with everything that needs more dependencies, are in the examples module.
package outgate
