package policy_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

// ask parses "service address" or "service address => resolved address".
func ask(tb testing.TB, s string) policy.Request {
	tb.Helper()
	s, resolved, ok := strings.Cut(s, " => ")
	service, address, _ := strings.Cut(s, " ")
	r := policy.Request{Target: target(tb, service, address)}
	if ok {
		r.Addr = netip.MustParseAddr(resolved)
	}
	return r
}

func TestPatterns(t *testing.T) {
	for _, tt := range []struct {
		rule     string
		matches  []string
		misses   []string
		deniable bool // the same must hold for a deny rule
	}{
		{
			rule:     `"db.internal:5432"`,
			matches:  []string{"tcp db.internal:5432", "http DB.internal.:5432", "udp db.internal:5432", "tcp db.internal:5432 => 10.0.0.1"},
			misses:   []string{"tcp db.internal:5433", "tcp db.internal2:5432", "tcp a.db.internal:5432", "tcp internal:5432", "tcp db:5432", "tcp 10.0.0.1:5432", "unix /db.internal:5432", "example.com/x db.internal:5432"},
			deniable: true,
		},
		{
			rule:     `"DB.Internal."`,
			matches:  []string{"tcp db.internal:1", "http db.internal:65535"},
			misses:   []string{"tcp db.internal.x:1", "tcp xdb.internal:1", "tcp a.db.internal:1"},
			deniable: true,
		},
		{
			rule:     `"*.example.com:443"`,
			matches:  []string{"tcp a.example.com:443", "tcp a.b.c.d.e.example.com:443", "tcp _a.example.com:443"},
			misses:   []string{"tcp example.com:443", "tcp a.example.com:444", "tcp aexample.com:443", "tcp a.example.com.x:443", "tcp a.xexample.com:443", "tcp com:443", "tcp 10.0.0.1:443"},
			deniable: true,
		},
		{
			rule:    `"*.example.com:443"`,
			matches: []string{"tcp b.example.com:443"},
			misses:  []string{"tcp xn--bcher-kva.example.com:443", "tcp a.xn--bcher-kva.example.com:443", "tcp xn--bcher-kva.a.example.com:443"},
		},
		{
			rule:     `"*.example.com"`,
			matches:  []string{"tcp a.example.com:1", "tcp a.b.example.com:65535"},
			misses:   []string{"tcp example.com:1", "tcp example.org:1"},
			deniable: true,
		},
		{
			rule:     `"*.xn--p1ai:443"`,
			matches:  []string{"tcp a.xn--p1ai:443"},
			misses:   []string{"tcp xn--p1ai:443", "tcp a.xn--p1aj:443"},
			deniable: true,
		},
		{
			rule:     `"xn--bcher-kva.example"`,
			matches:  []string{"tcp xn--bcher-kva.example:443"},
			misses:   []string{"tcp bcher.example:443", "tcp a.xn--bcher-kva.example:443"},
			deniable: true,
		},
		{
			rule:     `"*:5432"`,
			matches:  []string{"tcp db:5432", "tcp a.b.c:5432", "tcp 10.0.0.1:5432", "tcp [2001:db8::1]:5432", "tcp db:5432 => 2001:db8::1"},
			misses:   []string{"tcp db:5433", "tcp 10.0.0.1:543", "example.com/x db:5432", "unix /x"},
			deniable: true,
		},
		{rule: `"*:5432"`, matches: []string{"tcp db:5432"}, misses: []string{"tcp xn--p1ai:5432", "tcp a.xn--p1ai.b:5432"}},
		{
			rule:     `"10.0.1.50:8080"`,
			matches:  []string{"tcp 10.0.1.50:8080", "tcp [::ffff:10.0.1.50]:8080", "tcp db:8080 => 10.0.1.50", "tcp db:8080 => ::ffff:10.0.1.50", "tcp 10.0.1.50:8080 => 10.0.1.50"},
			misses:   []string{"tcp 10.0.1.51:8080", "tcp 10.0.1.50:8081", "tcp db:8080 => 10.0.1.51", "tcp db:8081 => 10.0.1.50"},
			deniable: true,
		},
		{
			rule:    `"10.0.1.50:8080"`,
			matches: []string{"tcp 10.0.1.50:8080"},
			misses:  []string{"tcp [64:ff9b::10.0.1.50]:8080", "tcp [2002:a00:132::]:8080", "tcp [::10.0.1.50]:8080"},
		},
		{rule: `"10.0.1.50"`, matches: []string{"tcp 10.0.1.50:1", "udp 10.0.1.50:65535"}, misses: []string{"tcp 10.0.1.5:1"}, deniable: true},
		{rule: `"10.0.1.50/32:80"`, matches: []string{"tcp 10.0.1.50:80"}, misses: []string{"tcp 10.0.1.51:80"}, deniable: true},
		{rule: `"::ffff:10.0.1.50"`, matches: []string{"tcp 10.0.1.50:1"}, misses: []string{"tcp 10.0.1.5:1"}, deniable: true},
		{rule: `"[2001:DB8::1]:443"`, matches: []string{"tcp [2001:db8::1]:443", "tcp a:443 => 2001:db8::1"}, misses: []string{"tcp [2001:db8::2]:443", "tcp [2001:db8::1]:444"}, deniable: true},
		{rule: `"2001:db8::1"`, matches: []string{"tcp [2001:db8::1]:1"}, misses: []string{"tcp [2001:db8::1:1]:1"}, deniable: true},
		{
			rule:     `"10.0.0.0/8:5432"`,
			matches:  []string{"tcp 10.0.0.0:5432", "tcp 10.255.255.255:5432", "tcp db:5432 => 10.1.2.3", "tcp db:5432 => ::ffff:10.1.2.3"},
			misses:   []string{"tcp 11.0.0.0:5432", "tcp 9.255.255.255:5432", "tcp 10.0.0.1:5433", "tcp db:5432 => 11.0.0.1", "tcp [2001:db8::1]:5432"},
			deniable: true,
		},
		{rule: `"10.0.0.0/8"`, matches: []string{"tcp 10.0.0.1:1", "http 10.0.0.1:2"}, misses: []string{"tcp 11.0.0.1:1"}, deniable: true},
		{rule: `"0.0.0.0/0"`, matches: []string{"tcp 8.8.8.8:1"}, misses: []string{"tcp [2001:db8::1]:1"}, deniable: true},
		{rule: `"::/0"`, matches: []string{"tcp [2001:db8::1]:1"}, misses: []string{"tcp 8.8.8.8:1"}, deniable: true},
		{rule: `"2001:db8::/32"`, matches: []string{"tcp [2001:db8:ffff::1]:1"}, misses: []string{"tcp [2001:db9::1]:1"}, deniable: true},
		{rule: `"[2001:db8::/32]:443"`, matches: []string{"tcp [2001:db8:ffff::1]:443"}, misses: []string{"tcp [2001:db8::1]:444"}, deniable: true},
		{
			rule:     `"db:8000-8099"`,
			matches:  []string{"tcp db:8000", "udp db:8050", "http db:8099", "tcp db:8001 => 10.0.0.1"},
			misses:   []string{"tcp db:7999", "tcp db:8100", "tcp db:80", "icmp db", "tcp a.db:8000"},
			deniable: true,
		},
		{rule: `"*.db:8000-8099"`, matches: []string{"tcp a.db:8000", "tcp a.b.db:8099"}, misses: []string{"tcp db:8000", "tcp a.db:8100", "icmp a.db"}, deniable: true},
		{rule: `"*:1-1023"`, matches: []string{"tcp db:1", "tcp 10.0.0.1:1023"}, misses: []string{"tcp db:1024", "icmp db"}, deniable: true},
		{rule: `"*:1-65535"`, matches: []string{"tcp db:1", "udp [2001:db8::1]:65535"}, misses: []string{"icmp db"}, deniable: true},
		{rule: `"10.0.0.0/8:8000-8099"`, matches: []string{"tcp 10.1.1.1:8000", "tcp db:8099 => 10.1.1.1"}, misses: []string{"tcp 10.1.1.1:8100", "tcp db:8100 => 10.1.1.1", "icmp 10.1.1.1"}, deniable: true},
		{rule: `"10.0.1.50:8000-8099"`, matches: []string{"tcp 10.0.1.50:8000"}, misses: []string{"tcp 10.0.1.50:7999", "tcp 10.0.1.51:8000"}, deniable: true},
		{rule: `"[2001:db8::1]:8000-8099"`, matches: []string{"tcp [2001:db8::1]:8099"}, misses: []string{"tcp [2001:db8::1]:8100"}, deniable: true},
		{rule: `"[2001:db8::/32]:8000-8099"`, matches: []string{"tcp [2001:db8::1]:8099"}, misses: []string{"tcp [2001:db8::1]:8100"}, deniable: true},
		{rule: `"db"`, matches: []string{"icmp db", "icmp DB.", "icmp db => 10.0.0.1", "tcp db:1"}, misses: []string{"icmp a.db", "icmp 10.0.0.1"}, deniable: true},
		{rule: `"db:443"`, matches: []string{"tcp db:443"}, misses: []string{"icmp db"}, deniable: true},
		{rule: `"10.0.0.0/8"`, matches: []string{"icmp 10.0.0.1", "icmp db => 10.0.0.1"}, misses: []string{"icmp 11.0.0.1", "icmp db => 2001:db8::1"}, deniable: true},
		{rule: `{endpoint: db, service: icmp}`, matches: []string{"icmp db"}, misses: []string{"tcp db:1", "udp db:1"}, deniable: true},
		{rule: `{endpoint: "2001:db8::/32", service: icmp}`, matches: []string{"icmp 2001:db8::1"}, misses: []string{"tcp [2001:db8::1]:1", "icmp 2001:db9::1"}, deniable: true},
		{rule: `{endpoint: "db:5432", service: tcp}`, matches: []string{"tcp db:5432"}, misses: []string{"http db:5432", "udp db:5432", "tcp db:5433"}, deniable: true},
		{rule: `{endpoint: "*.db", service: http}`, matches: []string{"http a.db:5432"}, misses: []string{"tcp a.db:5432"}, deniable: true},
		{rule: `{endpoint: "10.0.0.0/8", service: udp}`, matches: []string{"udp 10.0.0.1:53"}, misses: []string{"tcp 10.0.0.1:53"}, deniable: true},
		{rule: `{endpoint: "*:53", service: udp}`, matches: []string{"udp ns:53"}, misses: []string{"tcp ns:53"}, deniable: true},
		{
			rule:    `{endpoint: /run/x.sock, service: unix}`,
			matches: []string{"unix /run/x.sock"},
			misses:  []string{"unix /run/x.sock2", "unix /run", "unix /var/run/x.sock", "tcp x:1", "example.com/x /run/x.sock"},
		},
		{
			rule:     `{service: example.com/x}`,
			matches:  []string{"example.com/x ", "example.com/x a", "example.com/x db:5432"},
			misses:   []string{"example.com/y a", "example.com/x/y a", "tcp a:1"},
			deniable: true,
		},
		{
			rule:     `{service: example.com/x, endpoint: "a b"}`,
			matches:  []string{"example.com/x a b"},
			misses:   []string{"example.com/x a", "example.com/x ", "example.com/y a b"},
			deniable: true,
		},
		{rule: `{service: example.com/x, endpoint: ""}`, matches: []string{"example.com/x "}, misses: []string{"example.com/x a"}, deniable: true},
	} {
		allow := rules(t, "enable_access_restrictions: true\nallowed_endpoints:\n  - "+tt.rule)
		deny := rules(t, "enable_access_restrictions: false\ndenied_endpoints:\n  - "+tt.rule)
		for _, s := range tt.matches {
			r := ask(t, s)
			assert.NoError(t, allow.Authorize(t.Context(), r), "%s must allow %s", tt.rule, s)
			assert.NotEmpty(t, allow.Explain(r).Rule)
			assert.Equal(t, 3, allow.Explain(r).Line)
			assert.Error(t, deny.Authorize(t.Context(), r), "%s must deny %s", tt.rule, s)
		}
		for _, s := range tt.misses {
			r := ask(t, s)
			assert.Error(t, allow.Authorize(t.Context(), r), "%s must not allow %s", tt.rule, s)
			if tt.deniable && r.Target.Service != "unix" {
				assert.NoError(t, deny.Authorize(t.Context(), r), "%s must not deny %s", tt.rule, s)
			}
		}
	}
}

func TestADeniedStarCoversInternationalisedNames(t *testing.T) {
	deny := rules(t, `denied_endpoints: ["*.example.com", "*:25"]`)
	for _, s := range []string{"tcp xn--bcher-kva.example.com:443", "tcp a.xn--bcher-kva.b.example.com:443", "tcp xn--p1ai:25"} {
		require.Error(t, deny.Authorize(t.Context(), ask(t, s)), s)
	}
	require.NoError(t, deny.Authorize(t.Context(), ask(t, "tcp xn--bcher-kva.example.org:443")))
}

func TestADeniedAddressIsDeniedInsideIPv6(t *testing.T) {
	deny := rules(t, `denied_endpoints: ["10.0.0.0/8", "192.168.1.1:80"]`)
	for _, s := range []string{
		"tcp [64:ff9b::10.1.2.3]:80", "tcp [64:ff9b:1::10.1.2.3]:80", "tcp [64:ff9b:1:a01:2:300::]:80", "tcp [2002:a01:203::]:80", "tcp [::10.1.2.3]:80", "tcp [2001:0:a01:203::]:80", "tcp [2001:0:808:808::f5fe:fdfc]:80",
		"tcp [2001:db8::5efe:10.1.2.3]:80", "tcp db:80 => 64:ff9b::a01:203", "tcp db:80 => ::ffff:10.1.2.3", "tcp [64:ff9b::192.168.1.1]:80",
	} {
		require.Error(t, deny.Authorize(t.Context(), ask(t, s)), s)
	}
	for _, s := range []string{"tcp [64:ff9b::11.1.2.3]:80", "tcp [64:ff9b::192.168.1.1]:81", "tcp [2001:db8::a01:203]:80"} {
		require.NoError(t, deny.Authorize(t.Context(), ask(t, s)), s)
	}
}

func TestWildcardsAtEveryDepth(t *testing.T) {
	labels := []string{}
	for i := range 100 {
		labels = append(labels, "l"+strconv.Itoa(i))
	}
	name := strings.Join(labels[:60], ".")
	for depth := range 60 {
		suffix := strings.Join(labels[depth:60], ".")
		r := rules(t, `{"enable_access_restrictions": true, "allowed_endpoints": ["*.`+suffix+`"]}`)
		require.Equal(t, depth > 0, r.Explain(ask(t, "tcp "+name+":1")).Allowed, "depth %d", depth)
	}
}
