package policy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

// thousandRules are of all forms, in both lists.
func thousandRules(tb testing.TB) *policy.Rules {
	var b strings.Builder
	b.WriteString("enable_access_restrictions: true\nallowed_endpoints:\n")
	for i := range 150 {
		fmt.Fprintf(&b, "  - db-%d.prod.internal:5432\n  - host-%d.internal\n  - '*.team-%d.internal:443'\n  - 10.%d.0.0/16\n", i, i, i, i+50)
	}
	for i := range 50 {
		fmt.Fprintf(&b, "  - '*:%d-%d'\n  - 10.%d.0.0/16:8000-8099\n  - shared.internal:%d-%d\n", 20_000+100*i, 20_050+100*i, i, 1000*i+1, 1000*i+999)
		fmt.Fprintf(&b, "  - {endpoint: 'team.internal:22', subjects: [alice-%d, bob-%d], labels: {env: prod}}\n", i, i)
	}
	b.WriteString("denied_endpoints:\n")
	for i := range 100 {
		fmt.Fprintf(&b, "  - vault-%d.prod.internal\n  - 10.%d.%d.0/24\n", i, i, i)
	}
	return rules(tb, b.String())
}

var benchmarkRequests = []string{
	"tcp db-149.prod.internal:5432",
	"tcp db-149.prod.internal:5432 => 192.168.0.7",
	"tcp a.b.c.team-3.internal:443",
	"tcp a.b.c.team-3.internal:443 => 2001:db8::1",
	"tcp 10.150.3.4:5432",
	"tcp elsewhere.example.com:5432 => 10.150.3.4",
	"http [::ffff:10.150.3.4]:80",
	"tcp 10.30.3.4:8050",
	"tcp shared.internal:49500",
	"tcp somewhere.example.org:24950",
	"tcp team.internal:22",
}

// benchmarkRequest is on behalf of somebody that a rule is for.
func benchmarkRequest(tb testing.TB, s string) policy.Request {
	r := ask(tb, s)
	r.Subject, r.Labels = "bob-49", map[string]string{"env": "prod", "zone": "a"}
	return r
}

func TestAnAllowedRequestCostsNoAllocation(t *testing.T) {
	r := thousandRules(t)
	for _, s := range benchmarkRequests {
		request := benchmarkRequest(t, s)
		require.NoError(t, r.Authorize(t.Context(), request), s)
		require.Zero(t, testing.AllocsPerRun(100, func() { _ = r.Authorize(t.Context(), request) }), s)
	}
}

func BenchmarkAuthorize(b *testing.B) {
	r := thousandRules(b)
	for _, s := range append(benchmarkRequests, "tcp vault-7.prod.internal:5432", "tcp nothing.example.com:5433") {
		request := benchmarkRequest(b, s)
		b.Run(strings.ReplaceAll(s, " ", "_"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = r.Authorize(b.Context(), request)
			}
		})
	}
}

func BenchmarkParseTarget(b *testing.B) {
	for _, address := range []string{"db.prod.internal:5432", "DB.prod.internal.:5432", "10.0.0.1:80", "[2001:db8::1]:443"} {
		b.Run(address, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = policy.ParseTarget("tcp", address)
			}
		})
	}
}

func BenchmarkSpecial(b *testing.B) {
	for _, s := range []string{"10.0.0.1", "2001:db8::1", "64:ff9b:1::a00:1"} {
		addr := netip.MustParseAddr(s)
		b.Run(s, func(b *testing.B) {
			for b.Loop() {
				policy.Special(addr)
			}
		})
	}
}

func BenchmarkParseAThousandRules(b *testing.B) {
	document := thousandRules(b).String()
	b.SetBytes(int64(len(document)))
	for b.Loop() {
		_, _ = policy.Parse(strings.NewReader(document))
	}
}
