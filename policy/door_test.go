package policy_test

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// own plays an agent that listens on 10.0.0.5:9100 and has its gateway at 10.0.0.9.
func own(a netip.AddrPort) string {
	switch {
	case a == netip.MustParseAddrPort("10.0.0.5:9100"):
		return "own listener"
	case a.Addr() == netip.MustParseAddr("10.0.0.9"):
		return "gateway"
	}
	return ""
}

func TestWhatIsTheAgentsOwnIsOnTheDenyFloor(t *testing.T) {
	const document = `
enable_access_restrictions: true
allowed_endpoints: [10.0.0.0/8, name.internal, "64:ff9b::/96", "2002::/16"`
	closed := rules(t, document+"]")
	opened := rules(t, document+`, {endpoint: "10.0.0.5:9100", service: http, allow_special: true}, {endpoint: 10.0.0.9, allow_special: true}]`)
	for _, tt := range []struct {
		target         string
		answer         answers
		closed, opened bool // whether it is reached
	}{
		{"tcp 10.0.0.5:9101", nil, true, true},
		{"tcp 10.0.0.5:9100", nil, false, false},
		{"http 10.0.0.5:9100", nil, false, true},
		{"http name.internal:9100", addrs("10.0.0.5"), false, true},
		{"http name.internal:9100", addrs("10.0.0.4", "10.0.0.5"), false, true},
		{"tcp 10.0.0.9:1", nil, false, true},
		{"udp 10.0.0.9:2", nil, false, true},
		{"tcp [64:ff9b::10.0.0.9]:1", nil, false, false},
		{"tcp [2002:a00:9::]:1", nil, false, false},
		{"tcp [2002:a00:8::]:1", nil, true, true},
	} {
		for p, want := range map[policy.Policy]bool{closed: tt.closed, opened: tt.opened} {
			saw := &sawControl{err: errStopped}
			d := &policy.Dialer{Policy: p, Own: own, Resolver: tt.answer, Control: saw.control}
			_, err := d.DialTarget(t.Context(), ask(t, tt.target))
			require.Equal(t, want, d.Explain(t.Context(), ask(t, tt.target)).Allowed, tt.target)
			if want {
				require.ErrorIs(t, err, errStopped, tt.target)
				continue
			}
			require.ErrorIs(t, err, transport.Denied, tt.target)
			require.ErrorContains(t, err, "only a rule for exactly this address with allow_special opens it")
			require.Empty(t, saw.list())
		}
	}
	d := &policy.Dialer{Policy: policy.Func(func(context.Context, policy.Request) error { return nil }), Own: own}
	_, err := d.Resolve(t.Context(), ask(t, "icmp 10.0.0.9"))
	require.ErrorContains(t, err, "special (gateway)", "a policy that knows no special addresses opens none")
	d.Policy = policy.InsecureAllowAll()
	_, err = d.Resolve(t.Context(), ask(t, "icmp 10.0.0.9"))
	require.NoError(t, err)
}

func TestResolveReturnsOnlyWhatMayBeSentTo(t *testing.T) {
	lookups := 0
	d := &policy.Dialer{Policy: rules(t, `
enable_access_restrictions: true
allowed_endpoints: [db, {endpoint: 10.0.0.0/8, service: icmp}, "ns:53"]
denied_endpoints: [10.9.0.0/16]
`)}
	for _, tt := range []struct {
		target string
		answer answers
		want   string // addresses in their order, or an error's text
	}{
		{"icmp db", addrs("10.0.0.1", "10.0.0.2", "2001:db8::1", "::ffff:10.0.0.1"), "[10.0.0.1 2001:db8::1 10.0.0.2]"},
		{"icmp 10.0.0.7", nil, "[10.0.0.7]"},
		{"icmp other", addrs("10.0.0.1"), "[10.0.0.1]"},
		{"icmp other", addrs("11.0.0.1"), "no rule allows it"},
		{"icmp ns", addrs("11.0.0.1"), "no rule allows it"},
		{"icmp db", addrs("10.0.0.1", "127.0.0.1"), "special (loopback)"},
		{"icmp 169.254.169.254", nil, "special (metadata)"},
		{"icmp db", addrs("10.9.0.1"), "a rule denies it"},
		{"udp ns:53", addrs("192.168.0.2"), "[192.168.0.2]"},
		{"udp ns:54", addrs("192.168.0.2"), "no rule allows it"},
		{"unix /x", nil, "has no address to connect to"},
		{"example.com/x a", nil, "has no address to connect to"},
	} {
		d.Resolver = resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
			lookups++
			return tt.answer, nil
		})
		got, err := d.Resolve(t.Context(), ask(t, tt.target))
		if tt.want[0] != '[' {
			require.ErrorContains(t, err, tt.want, tt.target)
			continue
		}
		require.NoError(t, err, tt.target)
		text := "["
		for i, a := range got {
			if i > 0 {
				text += " "
			}
			text += a.String()
		}
		require.Equal(t, tt.want, text+"]", tt.target)
	}
	require.Equal(t, 7, lookups, "only what may be resolved, once")
	_, err := d.DialTarget(t.Context(), ask(t, "icmp db"))
	require.ErrorIs(t, err, transport.UnknownService)
}

func TestCheckAsksAgainAboutWhatWasDialled(t *testing.T) {
	d := &policy.Dialer{Own: own, Policy: rules(t, `
enable_access_restrictions: true
allowed_endpoints: [db, 10.0.0.0/8, {service: example.com/x}]
denied_endpoints: [10.9.0.0/16]
`), Resolver: resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
		t.Error("resolved")
		return nil, nil
	})}
	for s, allowed := range map[string]bool{
		"tcp db:1":                      true,
		"tcp db:1 => 192.168.0.1":       true,
		"tcp db:1 => ::ffff:10.9.0.1":   false,
		"tcp db:1 => 10.9.0.1":          false,
		"tcp db:1 => 127.0.0.1":         false,
		"tcp db:1 => 10.0.0.9":          false,
		"tcp other:1 => 10.0.0.1":       true,
		"tcp other:1 => 192.168.0.1":    false,
		"tcp 192.168.0.1:1":             false,
		"example.com/x a":               true,
		"unix /x":                       false,
		"tcp db:1 => 2001:db8::1%lo":    false,
		"tcp 10.0.0.1:1 => 10.0.0.1":    true,
		"tcp 10.0.0.1:1 => 192.168.0.1": false,
	} {
		err := d.Check(t.Context(), ask(t, s))
		require.Equal(t, allowed, err == nil, "%s: %v", s, err)
		if !allowed {
			require.ErrorIs(t, err, transport.Denied)
		}
	}
	require.ErrorIs(t, d.Check(t.Context(), policy.Request{}), transport.UnknownService)
	require.ErrorIs(t, (&policy.Dialer{}).Check(t.Context(), ask(t, "tcp db:1")), transport.Denied)
}

func TestAnAuditIsToldOncePerDial(t *testing.T) {
	var told []policy.Request
	d := &policy.Dialer{
		Policy:   rules(t, "enable_access_restrictions: true\naudit_only: true\nallowed_endpoints: [db, 10.0.0.0/8]\ndenied_endpoints: [10.9.0.1]"),
		Control:  (&sawControl{err: errStopped}).control,
		Resolver: addrs("192.168.0.1", "192.168.0.2"),
		Audit: func(r policy.Request, denied *policy.Denied) {
			require.Equal(t, r.Target, denied.Target)
			require.Equal(t, r.Addr, denied.Addr)
			told = append(told, r)
		},
	}
	_, err := d.DialTarget(t.Context(), ask(t, "tcp db:1"))
	require.ErrorIs(t, err, errStopped)
	require.Empty(t, told)
	_, err = d.DialTarget(t.Context(), ask(t, "tcp web:1"))
	require.ErrorIs(t, err, errStopped)
	require.Equal(t, []policy.Request{ask(t, "tcp web:1 => 192.168.0.1")}, told, "the name may have been allowed by its address")
	require.True(t, d.Explain(t.Context(), ask(t, "tcp web:1")).Allowed)
	require.Len(t, told, 1, "a dry run is not told")
	for _, s := range []string{"tcp 10.9.0.1:1", "tcp 127.0.0.1:1", "unix /x"} {
		_, err = d.DialTarget(t.Context(), ask(t, s))
		require.ErrorIs(t, err, transport.Denied)
	}
	require.Len(t, told, 1)
}

func TestADryRunSaysWhatADialWouldDo(t *testing.T) {
	saw := &sawControl{}
	d := &policy.Dialer{Policy: rules(t, `
enable_access_restrictions: true
allowed_endpoints:
  - db:5432
  - 10.0.0.0/8
denied_endpoints: [10.9.0.0/16, vault]
`), Control: saw.control}
	for _, tt := range []struct {
		target string
		answer policy.Resolver
		want   string
	}{
		{"tcp db:5432", addrs("10.0.0.1", "10.9.0.1", "127.0.0.1", "2001:db8::1%lo"), `{"target":"tcp:db:5432","allowed":false,
			"asked":{"allowed":true,"pending":true,"rule":"db:5432","line":4,"reason":"a rule allows the name"},
			"addresses":[
				{"address":"10.0.0.1","allowed":true,"rule":"db:5432","line":4,"reason":"a rule allows the name"},
				{"address":"10.9.0.1","allowed":false,"rule":"10.9.0.0/16","line":6,"reason":"a rule denies it"},
				{"address":"127.0.0.1","allowed":false,"reason":"the address is special (loopback): only a rule for exactly this address with allow_special opens it"},
				{"address":"2001:db8::1%lo","allowed":false,"reason":"an address with a zone is refused"}]}`},
		{"tcp 10.0.0.1:1", nil, `{"target":"tcp:10.0.0.1:1","allowed":true,
			"asked":{"allowed":true,"rule":"10.0.0.0/8","line":5,"reason":"a rule allows the address"},
			"addresses":[{"address":"10.0.0.1","allowed":true,"rule":"10.0.0.0/8","line":5,"reason":"a rule allows the address"}]}`},
		{"tcp vault:1", nil, `{"target":"tcp:vault:1","allowed":false,"asked":{"allowed":false,"rule":"vault","line":6,"reason":"a rule denies it"}}`},
		{"tcp db:5432", resolverFunc(func(context.Context, string, string) ([]netip.Addr, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "db", IsNotFound: true}
		}), `{"target":"tcp:db:5432","allowed":false,"error":"policy: dial tcp:db:5432: no such host: lookup db: no such host",
			"asked":{"allowed":true,"pending":true,"rule":"db:5432","line":4,"reason":"a rule allows the name"}}`},
		{"unix /x", nil, `{"target":"unix:/x","allowed":false,"asked":{"allowed":false,"reason":"a unix socket needs a rule that names it"}}`},
	} {
		d.Resolver = tt.answer
		text, err := json.Marshal(d.Explain(t.Context(), ask(t, tt.target)))
		require.NoError(t, err)
		require.JSONEq(t, tt.want, string(text))
	}
	require.Empty(t, saw.list())
	require.Equal(t, "the target is not canonical; make it with ParseTarget", d.Explain(t.Context(), policy.Request{Target: policy.Target{Service: "tcp", Host: "DB", Port: 1}}).Asked.Reason)

	closed := policy.Dialer{Policy: policy.Func(func(_ context.Context, r policy.Request) error {
		return &policy.Denied{Target: r.Target, Rule: "mine", Reason: "because"}
	})}
	require.Equal(t, policy.Decision{Rule: "mine", Reason: "because"}, closed.Explain(t.Context(), ask(t, "tcp db:1")).Asked)
	open := policy.Dialer{Policy: policy.InsecureAllowAll(), Resolver: addrs("127.0.0.1")}
	require.True(t, open.Explain(t.Context(), ask(t, "tcp db:1")).Allowed)
}
