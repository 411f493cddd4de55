package policy_test

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

func TestNothingIsAllowedWithoutRules(t *testing.T) {
	for name, p := range map[string]policy.Policy{
		"nil rules":      (*policy.Rules)(nil),
		"zero rules":     &policy.Rules{},
		"empty list":     rules(t, "enable_access_restrictions: true"),
		"DenyAll":        policy.DenyAll(),
		"All of nothing": policy.All(),
		"All with nil":   policy.All(policy.InsecureAllowAll(), nil),
	} {
		for _, s := range []string{"tcp db:1", "tcp db:1 => 10.0.0.1", "tcp 10.0.0.1:1", "tcp 127.0.0.1:1", "udp db:1", "http db:1", "unix /x", "example.com/x a"} {
			r := ask(t, s)
			err := p.Authorize(t.Context(), r)
			var denied *policy.Denied
			require.ErrorAs(t, err, &denied, "%s: %s", name, s)
			require.ErrorIs(t, err, transport.Denied)
			require.Equal(t, r.Target, denied.Target)
			require.Equal(t, r.Addr, denied.Addr)
			require.NotEmpty(t, denied.Reason)
			require.Empty(t, denied.Rule)
			if special, ok := p.(policy.SpecialAllower); ok {
				require.False(t, special.AllowSpecial(r), name)
			}
		}
	}
}

func TestWithoutRestrictionsAllButTheFloorIsAllowed(t *testing.T) {
	for _, document := range []string{"{}", "enable_access_restrictions: false", "enable_access_restrictions: false\nallowed_endpoints: [a:1]"} {
		r := rules(t, document)
		for _, s := range []string{"tcp db:1", "tcp db:1 => 10.0.0.1", "tcp 10.0.0.1:1", "udp db:1", "http xn--p1ai:1", "example.com/x a", "tcp localhost:1"} {
			require.NoError(t, r.Authorize(t.Context(), ask(t, s)), s)
		}
		for _, s := range []string{
			"tcp 127.0.0.1:1", "tcp db:1 => 127.0.0.1", "tcp localhost:1 => ::1", "tcp [::1]:1", "tcp 169.254.169.254:80", "tcp 0.0.0.0:1", "tcp [::]:1", "udp 224.0.0.251:5353",
			"tcp db:1 => 2002:7f00:1::", "tcp [::ffff:127.0.0.1]:1", "unix /var/run/docker.sock",
		} {
			require.Error(t, r.Authorize(t.Context(), ask(t, s)), s)
		}
	}
}

func TestDenyBeatsAllow(t *testing.T) {
	for _, restricted := range []string{"true", "false"} {
		r := rules(t, "enable_access_restrictions: "+restricted+`
allowed_endpoints:
  - "*.prod.internal"
  - db.prod.internal:5432
  - 10.0.0.0/8
  - {endpoint: 127.0.0.1, allow_special: true}
  - {endpoint: /run/x.sock, service: unix}
  - {endpoint: /run/y.sock, service: unix}
  - {service: example.com/x}
denied_endpoints:
  - vault.prod.internal
  - "*.secret.prod.internal:443"
  - 10.9.0.0/16
  - 127.0.0.1:22
  - {endpoint: "*:53", service: udp}
  - {endpoint: /run/y.sock, service: unix}
  - {endpoint: root, service: example.com/x}
`)
		for s, allowed := range map[string]bool{
			"tcp a.prod.internal:1":                   true,
			"tcp vault.prod.internal:1":               false,
			"tcp VAULT.prod.internal.:1":              false,
			"tcp a.vault.prod.internal:1":             true,
			"tcp a.secret.prod.internal:443":          false,
			"tcp a.secret.prod.internal:444":          true,
			"tcp a.prod.internal:1 => 10.9.1.1":       false,
			"tcp a.prod.internal:1 => 10.8.1.1":       true,
			"tcp a.prod.internal:1 => 192.168.0.1":    true,
			"tcp 10.9.0.1:1":                          false,
			"tcp 10.8.0.1:1":                          true,
			"tcp vault.prod.internal:1 => 10.8.0.1":   false,
			"tcp 127.0.0.1:21":                        true,
			"tcp 127.0.0.1:22":                        false,
			"tcp [::ffff:127.0.0.1]:22":               false,
			"tcp a.prod.internal:22 => 127.0.0.1":     false,
			"tcp a.prod.internal:21 => 127.0.0.1":     true,
			"tcp a.prod.internal:21 => 127.0.0.2":     false,
			"udp a.prod.internal:53":                  false,
			"tcp a.prod.internal:53":                  true,
			"unix /run/x.sock":                        true,
			"unix /run/y.sock":                        false,
			"unix /run/z.sock":                        false,
			"example.com/x root":                      false,
			"example.com/x guest":                     true,
			"tcp a.prod.internal:1 => 64:ff9b::a09:1": false,
		} {
			d := r.Explain(ask(t, s))
			require.Equal(t, allowed, d.Allowed, "restricted %s, %s: %s", restricted, s, d)
			require.Equal(t, allowed, r.Authorize(t.Context(), ask(t, s)) == nil)
		}
	}
}

func TestANameIsUndecidedWhileARuleForAddressesMayAllowIt(t *testing.T) {
	r := rules(t, `
enable_access_restrictions: true
allowed_endpoints:
  - 10.0.0.0/8:5432
  - {endpoint: 10.0.0.0/8:80, service: http}
  - named.internal:22
denied_endpoints:
  - forbidden.internal
  - 10.9.0.0/16
`)
	for s, want := range map[string]policy.Decision{
		"tcp db:5432":                       {Allowed: true, Pending: true, Rule: "10.0.0.0/8:5432", Line: 4, Reason: "a rule may allow the address"},
		"http db:80":                        {Allowed: true, Pending: true, Rule: "10.0.0.0/8:80 for service http", Line: 5, Reason: "a rule may allow the address"},
		"tcp db:80":                         {Reason: "no rule allows it"},
		"tcp db:5433":                       {Reason: "no rule allows it"},
		"tcp forbidden.internal:5432":       {Rule: "forbidden.internal", Line: 8, Reason: "a rule denies it"},
		"tcp db:5432 => 10.1.1.1":           {Allowed: true, Rule: "10.0.0.0/8:5432", Line: 4, Reason: "a rule allows the address"},
		"tcp db:5432 => 11.1.1.1":           {Reason: "no rule allows it"},
		"tcp db:5432 => 10.9.1.1":           {Rule: "10.9.0.0/16", Line: 9, Reason: "a rule denies it"},
		"tcp named.internal:22":             {Allowed: true, Pending: true, Rule: "named.internal:22", Line: 6, Reason: "a rule allows the name"},
		"tcp named.internal:22 => 8.8.8.8":  {Allowed: true, Rule: "named.internal:22", Line: 6, Reason: "a rule allows the name"},
		"tcp named.internal:22 => 10.9.0.1": {Rule: "10.9.0.0/16", Line: 9, Reason: "a rule denies it"},
		"tcp 10.1.1.1:5432":                 {Allowed: true, Rule: "10.0.0.0/8:5432", Line: 4, Reason: "a rule allows the address"},
		"tcp 10.9.1.1:5432":                 {Rule: "10.9.0.0/16", Line: 9, Reason: "a rule denies it"},
		"tcp 11.1.1.1:5432":                 {Reason: "no rule allows it"},
	} {
		require.Equal(t, want, r.Explain(ask(t, s)), s)
	}
	require.Equal(t, "may be resolved by rule 10.0.0.0/8:5432 on line 4: a rule may allow the address", r.Explain(ask(t, "tcp db:5432")).String())
	require.Equal(t, "allowed by rule 10.0.0.0/8:5432 on line 4: a rule allows the address", r.Explain(ask(t, "tcp 10.1.1.1:5432")).String())
	require.Equal(t, "denied by rule 10.9.0.0/16 on line 9: a rule denies it", r.Explain(ask(t, "tcp 10.9.1.1:5432")).String())
	require.Equal(t, "denied: no rule allows it", r.Explain(ask(t, "tcp 11.1.1.1:5432")).String())
}

func TestTheMostSpecificRuleIsNamed(t *testing.T) {
	r := rules(t, `
enable_access_restrictions: true
allowed_endpoints: ["*:1", "*.b", "*.a.b", "*.a.b:1", "x.a.b", "x.a.b:1", 10.0.0.0/8, "10.0.0.0/16", "10.0.0.1", "r:1-9", "r:5-6", r]
`)
	for s, want := range map[string]string{
		"tcp x.a.b:1": "x.a.b:1", "tcp x.a.b:2": "x.a.b", "tcp y.a.b:1": "*.a.b:1", "tcp y.a.b:2": "*.a.b", "tcp a.b:1": "*.b", "tcp b:1": "*:1",
		"tcp r:5": "r:5-6", "tcp r:2": "r:1-9", "tcp r:10": "r",
		"tcp 10.0.0.1:1": "10.0.0.1", "tcp 10.0.0.2:1": "10.0.0.0/16", "tcp 10.1.0.2:1": "10.0.0.0/8", "tcp 11.0.0.1:1": "*:1",
	} {
		require.Equal(t, want, r.Explain(ask(t, s)).Rule, s)
	}
}

func TestOnlyARuleForExactlyThisAddressOpensTheFloor(t *testing.T) {
	for _, restricted := range []string{"true", "false"} {
		r := rules(t, "enable_access_restrictions: "+restricted+`
allowed_endpoints:
  - {endpoint: "127.0.0.1:9100", service: http, allow_special: true}
  - {endpoint: "::1", allow_special: true}
  - 127.0.0.2
  - {endpoint: 127.0.0.3, allow_special: false}
  - 127.0.0.0/8
  - ::/0
  - 0.0.0.0/0
  - localhost
  - "*:80"
`)
		for s, opened := range map[string]bool{
			"http 127.0.0.1:9100": true, "http localhost:9100 => 127.0.0.1": true, "http [::ffff:127.0.0.1]:9100": true, "tcp [::1]:1": true, "udp x:2 => ::1": true,
			"tcp 127.0.0.1:9100": false, "http 127.0.0.1:9101": false, "tcp 127.0.0.2:80": false, "tcp 127.0.0.3:80": false, "tcp 127.0.0.4:80": false, "tcp localhost:80 => 127.0.0.9": false,
			"http [64:ff9b::127.0.0.1]:9100": false, "http [2002:7f00:1::]:9100": false, "http [::127.0.0.1]:9100": false, "tcp 169.254.169.254:80": false,
		} {
			req := ask(t, s)
			d := r.Explain(req)
			require.Equal(t, opened, d.Allowed, "%s: %s", s, d)
			require.Equal(t, opened, r.AllowSpecial(req), s)
		}
		require.False(t, r.AllowSpecial(ask(t, "tcp 10.0.0.1:80")), "not special, and no rule with allow_special")
	}
}

func TestAnAddressMustBelongToTheTarget(t *testing.T) {
	r := rules(t, `{"enable_access_restrictions": true, "allowed_endpoints": ["10.0.0.0/8", "db"]}`)
	require.NoError(t, r.Authorize(t.Context(), ask(t, "tcp 10.0.0.1:1 => 10.0.0.1")))
	require.Error(t, r.Authorize(t.Context(), ask(t, "tcp 10.0.0.1:1 => 10.0.0.2")))
	require.Error(t, r.Authorize(t.Context(), ask(t, "tcp 11.0.0.1:1 => 10.0.0.2")))
	require.Error(t, r.Authorize(t.Context(), ask(t, "tcp db:1 => 2001:db8::1%eth0")))
	open := rules(t, "{}")
	require.Error(t, open.Authorize(t.Context(), ask(t, "tcp db:1 => 2001:db8::1%eth0")))
	one := rules(t, `{"enable_access_restrictions": true, "allowed_endpoints": [{"endpoint": "fe80::1", "allow_special": true}]}`)
	require.NoError(t, one.Authorize(t.Context(), ask(t, "tcp db:1 => fe80::1")))
	require.Error(t, one.Authorize(t.Context(), ask(t, "tcp db:1 => fe80::1%eth0")))
	require.False(t, one.AllowSpecial(ask(t, "tcp db:1 => fe80::1%eth0")))
}

func TestADenialSaysWhichRuleAndWhy(t *testing.T) {
	r := rules(t, `denied_endpoints: ["*.secret.internal", {endpoint: "db:5432", service: tcp}, {service: udp}]`)
	for s, want := range map[string]string{
		"tcp a.secret.internal:1":   `policy: tcp:a.secret.internal:1 denied: a rule denies it (rule "*.secret.internal")`,
		"tcp db:5432":               `policy: tcp:db:5432 denied: a rule denies it (rule "db:5432 for service tcp")`,
		"udp ns:53":                 `policy: udp:ns:53 denied: a rule denies it (rule "service udp")`,
		"tcp x:1 => 127.0.0.1":      "policy: tcp:x:1 denied at 127.0.0.1: the address is special (loopback): only a rule for exactly this address with allow_special opens it",
		"tcp [2002:a9fe:a9fe::]:80": "policy: tcp:[2002:a9fe:a9fe::]:80 denied: the address is special (metadata): only a rule for exactly this address with allow_special opens it",
		"unix /var/run/docker.sock": "policy: unix:/var/run/docker.sock denied: a unix socket needs a rule that names it",
	} {
		require.EqualError(t, r.Authorize(t.Context(), ask(t, s)), want)
	}
}

// recorder is a policy that counts and answers as told.
type recorder struct {
	err     error
	special bool
	asked   *int
}

func (p recorder) Authorize(context.Context, policy.Request) error { *p.asked++; return p.err }
func (p recorder) AllowSpecial(policy.Request) bool                { return p.special }

func TestAllNeedsEveryPolicy(t *testing.T) {
	no, asked := errors.New("no"), 0
	yes := recorder{special: true, asked: &asked}
	r := ask(t, "tcp db:1")
	require.NoError(t, policy.All(yes, yes).Authorize(t.Context(), r))
	require.Equal(t, 2, asked)
	require.ErrorIs(t, policy.All(yes, recorder{err: no, asked: &asked}, yes).Authorize(t.Context(), r), no)
	require.Equal(t, 4, asked, "the first error decides")
	require.True(t, policy.All(yes, yes).AllowSpecial(r))
	require.False(t, policy.All(yes, recorder{asked: &asked}).AllowSpecial(r))
	require.False(t, policy.All(yes, policy.Func(yes.Authorize)).AllowSpecial(r), "a Func opens nothing")
	require.True(t, policy.All(policy.All(yes), policy.InsecureAllowAll()).AllowSpecial(r))
	list := []policy.Policy{yes}
	kept := policy.All(list...)
	list[0] = policy.DenyAll()
	require.NoError(t, kept.Authorize(t.Context(), r))
}

func TestTheDecisionAgreesWithOneThatLooksAtEveryRule(t *testing.T) {
	random := newRandom(t, 3)
	allowed := 0
	for range 1_000 {
		p := randomPolicy(random)
		r := rules(t, p.text())
		for range 10 {
			addr := randomAddr(random)
			service, port := pick(random, "tcp", "http", "udp"), pick(random, 80, 443, 5432)
			name := pick(random, append(naiveNames, "")...)
			request := policy.Request{Target: policy.Target{Service: service, Host: name, Port: uint16(port)}, Addr: addr}
			if name == "" {
				request.Target.Host = addr.Unmap().String()
				request.Addr = pick(random, addr, netip.Addr{})
			}
			d := r.Explain(request)
			want := p.permits(service, name, addr, port)
			require.Equal(t, want, d.Allowed, "%s\n%s at %s: %s", p.text(), request.Target, addr, d)
			require.False(t, d.Pending)
			if want {
				allowed++
				if name != "" {
					request.Addr = netip.Addr{}
					require.NoError(t, r.Authorize(t.Context(), request), "refused before it was resolved:\n%s\n%s", p.text(), request.Target)
				}
			}
		}
	}
	require.Greater(t, allowed, 1_000)
}
