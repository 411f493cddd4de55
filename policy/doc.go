// Package policy says which targets an agent may be asked to reach, and dials them.
//
//	rules, err := policy.Parse(file)
//	if err != nil {
//		return err
//	}
//	target, err := policy.ParseTarget("tcp", "db.internal:5432")
//	if err != nil {
//		return err
//	}
//	dialer := &policy.Dialer{Policy: rules}
//	conn, err := dialer.DialTarget(ctx, policy.Request{Target: target})
//
// A [Policy] answers for one [Request]. [Rules] is the one that an owner writes as a
// document; [Func] is one in Go; [All] joins several.
//
// # The document
//
// YAML or JSON with these keys, each of which may be missing:
//
//	enable_access_restrictions: true
//	allowed_endpoints:
//	  - my-postgres.internal:5432
//	  - "*.prod.internal:443"
//	  - 10.0.0.0/8:8080
//	  - {endpoint: "127.0.0.1:9100", service: http, allow_special: true}
//	  - {endpoint: /run/db.sock, service: unix}
//	  - endpoint: warehouse.internal:5432
//	    subjects: [alice, nightly-report]
//	    labels: {env: prod}
//	denied_endpoints:
//	  - vault.prod.internal
//	audit_only: false
//	kubernetes:
//	  allowed_namespaces: [production, monitoring]
//	  deny_resources: [secrets]
//
// Without access restrictions everything is allowed that is neither denied nor on
// the deny floor; allowed_endpoints then only open the floor. With them, what is
// allowed must also be in allowed_endpoints. The key must be written when there are
// allowed_endpoints, so that nobody believes in a list that is switched off.
//
// With audit_only, what no rule allows passes and is reported ([Rules.WouldDeny]), so
// that a list can be tried before it is in force. It never opens a denied endpoint or
// the deny floor.
//
// An endpoint is a string, or a mapping of the string under the key endpoint and of what
// narrows it: service, subjects, labels and allow_special. The strings are
//
//	db.internal:5432        a name and a port
//	db.internal             a name, any port
//	*.example.com:443       one or more labels before example.com, not example.com itself
//	*.example.com           the same, any port
//	*:5432                  any host, one port
//	db.internal:8000-8099   a range of ports, wherever a port may stand
//	10.0.1.50:8080          an IP address and a port
//	10.0.1.50               an IP address, any port
//	[2001:db8::1]:443       brackets when a port follows
//	10.0.0.0/8:5432         a prefix and a port
//	10.0.0.0/8              a prefix, any port
//	[2001:db8::/32]:443     brackets when a port follows
//
// An endpoint that begins with a star or a bracket must be in quotes in YAML. Names
// follow [ParseTarget].
//
// A rule with a service speaks of that service alone. Without one it speaks of tcp, udp
// and http, and of icmp (echo, traceroute) if it is for any port. A unix socket has the
// service unix and its path as the endpoint. A product's service, such as example.com/x,
// has its address as the endpoint; without an endpoint the rule is for all its addresses.
// In denied_endpoints any service may stand without an endpoint.
//
// A rule with subjects is for streams on behalf of one of them: exact texts, which the
// gateway vouches for. A rule with labels is for agents that have all of them, so that one
// document can serve many agents.
//
// The kubernetes block says what of a Kubernetes API may pass: read_only (true unless
// written otherwise), allowed_verbs (those that read, or all), allowed_namespaces (all
// unless written; an empty list is none) and deny_resources, such as secrets, pods/exec
// or deployments.apps/scale. See [Kubernetes].
//
// # The decision
//
// The first of these that applies decides:
//
//  1. A denied endpoint matches: denied.
//  2. The target is on the deny floor: denied, unless an allowed endpoint that is
//     exactly this IP address (with this port or any) has allow_special. Unix sockets
//     are on the floor too: each needs a rule that names it.
//  3. Access restrictions are off: allowed.
//  4. An allowed endpoint matches: allowed.
//  5. Denied, or reported if audit_only is on.
//
// Rules for names match the name that was asked for, and rules for addresses the
// address that it resolved to; a target that is an IP literal has its address from
// the start and matches no name. So a name is decided twice. Before it is resolved
// ([Request].Addr is zero) it passes when a rule allows the name, or when a rule for
// addresses with its service and port may still allow what it resolves to; deny rules
// for names refuse it here. Then each address is decided for good: a denied prefix and
// the deny floor refuse it whatever allowed the name, and a name that no rule allows
// needs a rule for this address. A rule for a name trusts the resolver of the agent's
// machine for every address outside the floor and the denied endpoints.
//
// Where the two lists could be read differently, each is read strictly: in
// denied_endpoints a star also covers internationalised labels (xn--), and a prefix
// also covers IPv6 addresses that carry an IPv4 address in it (see [Special]); in
// allowed_endpoints neither does, so that such a name or address must be written out.
//
// # The door
//
// A [Dialer] asks its policy and connects. What does not connect asks [Dialer.Resolve] or
// [Dialer.Check]; an HTTP client is made by [HTTP]. The deny floor has the addresses of
// [Special] and those that the program says are its own, in Own of the Dialer.
//
// [Dialer.Explain] is a dry run, and [RunCases] holds a policy against a file of cases.
//
// # Change
//
// [Rules] never change. A [File] follows a document on disk and puts new Rules in place;
// whoever holds streams open asks again when a [Changer] says so.
//
// # Not here
//
// Who asks is not proven here: [Request].Subject is the gateway's word. HTTP methods and
// paths belong to the packages that speak those protocols, and so does the enforcement of
// the kubernetes block. Symbolic links below the path of a unix socket are followed: they
// are the owner's.
package policy
