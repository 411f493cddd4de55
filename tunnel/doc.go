// Package tunnel joins agents and gateways: an [Agent] inside a private network
// dials out, a [Gateway] opens streams through it to what the agent's policy allows.
//
// The agent, in a daemon:
//
//	agent := &tunnel.Agent{
//		Gateways: []string{"https://gateway.example.com"},
//		Dialers:  []transport.Dialer{&websocket.Dialer{GetTLSClientConfig: identity.ClientTLS}},
//		Policy:   rules,
//	}
//	err := agent.Run(ctx)
//
// The gateway, in a server:
//
//	gateway := &tunnel.Gateway{Identify: pki.AgentName}
//	go gateway.Serve(ctx, listener)
//	...
//	conn, err := gateway.Dialer("agent-1", "alice")(ctx, "tcp", "db.internal:5432")
//
// # Life of a connection
//
// One of the agent's Dialers connects, and TLS proves who is who. The agent opens the first
// stream, the control stream, and says hello; the gateway answers welcome. From then
// on either side opens streams. The opener of a stream sends a header that names the
// service, the address and the subject; the other side asks its policy, dials or calls
// a [Handler], and replies. Not before the reply does payload flow, so an open that
// succeeded has reached its target, and one that failed says why in an [OpenError].
//
// Both sides ping a silent peer and give it up after three silent intervals
// ([Liveness]). The agent then reconnects, with random delays that grow.
//
// An agent has one or more transports, in order. It begins with the one that worked
// last, steps down when that fails, and climbs back in the background: a better
// connection is up and has its welcome before the one in use is drained.
// [Agent.Status] says which transport is in use, and how the others failed.
//
// # Services
//
// The agent dials for tcp, unix and http: http is tcp that a policy can tell apart.
// [Agent.Handle] and [Agent.Listen] serve a product's own services, named like
// "example.com/admin", from inside the process; [Gateway.Handle] serves those that
// agents open to the gateway.
//
// # Policy
//
// The agent's policy is asked about every stream before its name is resolved and about
// every address before it is dialled. While a [policy.File] or another [policy.Changer]
// is in use, each change of it is held against the open streams too: those that it does
// not allow any more are reset with code Denied. The gateway learns the digest of the
// policy ([AgentInfo]), not the policy.
//
// # Trust
//
// The agent trusts the gateway for routing and availability. What a gateway says about
// subjects is passed on and logged, and cannot widen the agent's policy. An agent is
// who its certificate says; nothing it sends changes that, and what it sends is
// treated as hostile.
//
// # Not here
//
// Carriers (package transport and below), certificates (package pki; any other PKI
// works), the language of rules (package policy).
package tunnel
