package policy_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

const printableASCII = " !\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~"

func FuzzParseTarget(f *testing.F) {
	for _, service := range []string{"tcp", "icmp", "unix", "example.com/x"} {
		for _, address := range []string{"db.internal:5432", "[2001:DB8::1]:443", "10.0.0.1:80", "127.1:80", "/run/x.sock", "xn--p1ai:1", "[::ffff:1.2.3.4]:5", "A.b.:65535", ""} {
			f.Add(service, address)
		}
	}
	open := rules(f, "{}")
	f.Fuzz(func(t *testing.T, service, address string) {
		target, err := policy.ParseTarget(service, address)
		if err != nil {
			require.Equal(t, policy.Target{}, target)
			return
		}
		again, err := policy.ParseTarget(target.Service, target.Address())
		require.NoError(t, err)
		require.Equal(t, target, again)
		require.Equal(t, service, target.Service)
		require.Empty(t, strings.Trim(target.String(), printableASCII))
		require.NotContains(t, open.Explain(policy.Request{Target: target}).Reason, "canonical")
		if target.Host == "" {
			return
		}
		require.Equal(t, strings.ToLower(target.Host), target.Host)
		require.Equal(t, service == "icmp", target.Port == 0)
		require.LessOrEqual(t, len(target.Host), 253)
		if addr, err := netip.ParseAddr(target.Host); err == nil {
			require.Equal(t, addr.Unmap().WithZone("").String(), target.Host)
			return
		}
		require.NotContains(t, target.Host, "..")
		require.Equal(t, strings.Trim(target.Host, ".-"), target.Host)
		last := target.Host[strings.LastIndexByte(target.Host, '.')+1:]
		require.NotEmpty(t, strings.Trim(last, "0123456789"), "a resolver may read it as an address")
	})
}

func FuzzParse(f *testing.F) {
	for _, document := range []string{
		"enable_access_restrictions: true\nallowed_endpoints:\n  - db:5432\n  - '*.a'\ndenied_endpoints: ['*:25', 10.0.0.0/8, '[2001:db8::/32]:1']\n",
		`{"enable_access_restrictions": false, "allowed_endpoints": [{"endpoint": "127.0.0.1:1", "service": "http", "allow_special": true}, {"endpoint": "/x", "service": "unix"}, {"service": "example.com/x"}]}`,
		"enable_access_restrictions: true\naudit_only: true\nallowed_endpoints: ['*:1-1023', {endpoint: '[2001:db8::/32]:8000-8099', subjects: [alice, Zoë], labels: {env: prod, zone: 'a b'}}, {endpoint: 10.0.0.1, service: icmp}]\n",
		"kubernetes: {read_only: false, allowed_namespaces: [a, b], deny_resources: [secrets, pods/exec, deployments.apps/scale], allowed_verbs: [get, delete]}",
		`{"denied_endpoints": ["10.0.0.0\/8", {"endpoint": "\/run\/\\\/x", "service": "unix"}]}`,
		"a: &x [*x]", "---\n...\n---\n", "denied_endpoints: [a\n", "? a\n: b", "{}",
	} {
		f.Add([]byte(document))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		r, err := policy.Parse(strings.NewReader(string(document)))
		if err != nil {
			var bad *policy.SyntaxError
			require.ErrorAs(t, err, &bad)
			require.NotEmpty(t, bad.Reason)
			return
		}
		again, err := policy.Parse(strings.NewReader(r.String()))
		require.NoError(t, err, r.String())
		require.Equal(t, r.String(), again.String())
		for _, s := range []string{"tcp db:5432", "tcp a.b:25", "tcp 10.0.0.1:1", "http 127.0.0.1:1", "udp x:1 => 2001:db8::1", "unix /x", "example.com/x a"} {
			one, two := r.Explain(ask(t, s)), again.Explain(ask(t, s))
			one.Line, two.Line = 0, 0
			require.Equal(t, one, two)
		}
	})
}

func FuzzParseCases(f *testing.F) {
	for _, text := range []string{
		`{"cases": [{"target": "db:5432", "want": "allow", "rule": "db:5432"}, {"target": "db:5432", "resolves": ["10.0.0.1", "::1"], "want": "deny"}]}`,
		"cases:\n  - {target: /x, service: unix, subject: alice, labels: {env: prod}, want: deny}\n", "cases: []", "cases: [&a {}, *a]",
	} {
		f.Add([]byte(text))
	}
	r := rules(f, "enable_access_restrictions: true\naudit_only: true\nallowed_endpoints: [db, 10.0.0.0/8, {endpoint: /x, service: unix}]\ndenied_endpoints: [10.9.0.0/16]")
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := policy.ParseCases(strings.NewReader(string(text)))
		if err != nil {
			var bad *policy.SyntaxError
			require.ErrorAs(t, err, &bad)
			require.NotEmpty(t, bad.Reason)
			return
		}
		results := policy.RunCases(r, list)
		require.Len(t, results, len(list))
		for _, result := range results {
			require.NotEmpty(t, result.Got.Reason)
			require.Equal(t, result.Passed, (result.Got.Allowed && !result.Got.WouldDeny) == result.Allow && (result.Rule == "" || result.Rule == result.Got.Rule))
		}
	})
}

// A rule decides alike as an allowed and as a denied endpoint, and as naive set
// membership does.
func FuzzPrefix(f *testing.F) {
	f.Add("10.0.0.0/8", "10.1.2.3", uint16(80))
	f.Add("2001:db8::/32", "2001:db8::1", uint16(1))
	f.Add("10.0.0.1", "::ffff:10.0.0.1", uint16(0))
	f.Add("0.0.0.0/0", "64:ff9b::1.2.3.4", uint16(443))
	f.Fuzz(func(t *testing.T, endpoint, address string, port uint16) {
		r, err := policy.Parse(strings.NewReader("enable_access_restrictions: true\nallowed_endpoints:\n  - '" + endpoint + "'\n"))
		if err != nil || port == 0 {
			return
		}
		addr, err := netip.ParseAddr(address)
		if err != nil || addr.Zone() != "" {
			return
		}
		prefix, err := netip.ParsePrefix(endpoint)
		if err != nil {
			single, err := netip.ParseAddr(endpoint)
			if err != nil {
				return
			}
			prefix = netip.PrefixFrom(single.Unmap(), single.Unmap().BitLen())
		}
		_, special := policy.Special(addr)
		request := policy.Request{Target: policy.Target{Service: "tcp", Host: addr.Unmap().String(), Port: port}}
		require.Equal(t, prefix.Contains(addr.Unmap()) && !special, r.Explain(request).Allowed, "%s in %s", addr, prefix)
	})
}
