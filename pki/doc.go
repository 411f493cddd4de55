// Package pki gives agents their identity: a certificate, got with a one-time
// token, renewed while the agent runs, and revoked when it should no longer be
// believed.
//
// # The gateway's side
//
// An [Authority] holds the signing key and remembers in a [Store] what it
// granted, issued and revoked. [Handler] serves it to agents, on the same port
// as the tunnel:
//
//	signer, cert, err := pki.LoadOrCreateCA(ctx, "/var/lib/gateway/ca", "example.com")
//	store, err := pki.OpenFileStore("/var/lib/gateway/registry")
//	authority := &pki.Authority{Signer: signer, Certificate: cert, Store: store}
//	config, err := authority.ServerTLS(tls.VerifyClientCertIfGiven, "gateway.example.com")
//	mux.Handle("/outgate/v1/", pki.Handler(authority, pki.HandlerConfig{}))
//
//	follower := &pki.Follower{Store: store}
//	authority.Follower = follower
//	gateway := &tunnel.Gateway{Identify: authority.Identify, Verify: follower.Check}
//	follower.Changed = gateway.Reverify
//	go follower.Run(ctx)
//
//	token, err := authority.Grant(ctx, pki.Grant{Agent: "prod-eu"}) // token.Reveal() goes to the agent
//
// # The agent's side
//
// [Enroll] is called at every start. It needs the token at the first one only:
//
//	storage, err := pki.OpenFileStorage("/var/lib/agent")
//	client := &pki.Client{Gateway: "https://gateway.example.com", Pins: pins}
//	identity, err := pki.Enroll(ctx, storage, client, pki.Registration{Token: token})
//	go identity.Run(ctx, client) // renews
//	config := identity.ClientTLS()
//
// An [Enroller] has the options: how long after its end a certificate may be
// renewed, and a log. [Failover] asks several gateways. Package kubesecret keeps
// the identity in a Kubernetes Secret instead of a directory.
//
// # What holds
//
// A token makes one identity, whatever arrives together and whatever crashes:
// the key is on disk before the token leaves the agent, the token is spent and
// the certificate recorded in one step, and the same token with the same key
// gets the same certificate again. Nobody learns from a refusal why it was
// refused; the authority's log tells. What the agent sends decides nothing but
// its public key. Secrets are stored as hashes and print themselves redacted.
//
// A certificate is looked up by its serial number in every handshake, and one
// that is revoked, or that the store does not know, is refused. The first use of
// a certificate spends its token and retires the certificate that it renewed.
// While the store cannot be reached nobody gets in, or, with a [Follower], who
// was not revoked when it last could be, for a minute.
//
// # Changing the authority
//
// One authority follows another in three steps, each a restart of the gateway
// with other fields of [Authority]. First put the new certificate in Trusted:
// agents learn of it when they renew. When all have, make it Certificate with its
// Signer, and put the old one in Trusted: agents notice nothing, renew with the
// new one, and may present either. When the old one has ended, or no agent has a
// certificate of it any more, leave it out. Pins in use must name the new one
// before the second step.
//
// # Not here
//
// Connections: package tunnel ends those that a [Follower] has heard are
// revoked. Permissions: what an agent may reach is
// for package policy. Certificates that are not for tunnels, CRLs and OCSP: the
// authority is asked directly. An agent whose certificate has expired needs a
// new token, unless both sides set a RenewalGrace.
package pki
