package policy_test

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

func cases(tb testing.TB, text string) []policy.Case {
	tb.Helper()
	list, err := policy.ParseCases(strings.NewReader(text))
	require.NoError(tb, err)
	return list
}

const casesDocument = `
enable_access_restrictions: true
allowed_endpoints:
  - db.internal:5432
  - 10.0.0.0/8:443
  - {endpoint: /run/db.sock, service: unix, subjects: [alice]}
  - {endpoint: lab, labels: {env: test}}
denied_endpoints: [vault.internal]
`

func TestCasesAreHeldAgainstAPolicy(t *testing.T) {
	list := cases(t, `
cases:
  - {target: "db.internal:5432", want: allow}
  - {target: "db.internal:5432", want: allow, rule: "db.internal:5432"}
  - {target: "db.internal:5432", resolves: [192.168.0.1, "2001:db8::1"], want: allow}
  - {target: "db.internal:5432", resolves: [192.168.0.1, 127.0.0.1], want: deny}
  - {target: "web.internal:443", want: allow}
  - {target: "web.internal:443", resolves: [10.1.1.1], want: allow, rule: "10.0.0.0/8:443"}
  - {target: "web.internal:443", resolves: [11.1.1.1], want: deny}
  - {target: "vault.internal:443", want: deny, rule: vault.internal}
  - {target: "127.1:80", want: deny}
  - {target: "169.254.169.254:80", want: deny}
  - {target: lab, service: icmp, labels: {env: test}, want: allow}
  - {target: lab, service: icmp, want: deny}
  - {target: /run/db.sock, service: unix, subject: alice, want: allow}
  - {target: /run/db.sock, service: unix, subject: bob, want: deny}
  - {target: "", service: nonsense, want: deny}
`)
	require.Len(t, list, 15)
	for _, r := range policy.RunCases(rules(t, casesDocument), list) {
		require.True(t, r.Passed, "%s", r)
	}
	for i := range list {
		list[i].Allow = !list[i].Allow
		list[i].Rule = ""
	}
	for _, r := range policy.RunCases(rules(t, casesDocument), list) {
		require.False(t, r.Passed, "%s", r)
	}
}

func TestACaseThatFailsSaysWhatItGot(t *testing.T) {
	r := rules(t, casesDocument)
	results := policy.RunCases(r, cases(t, `{"cases": [
  {"target": "db.internal:5433", "want": "allow", "rule": "db.internal:5432"},
  {"target": "db.internal:5432", "want": "allow", "rule": "something else"},
  {"target": "vault.internal:1", "want": "deny"}
]}`))
	require.Equal(t, "line 2: tcp:db.internal:5433: want allow by rule db.internal:5432, got denied: no rule allows it", results[0].String())
	require.Equal(t, "line 3: tcp:db.internal:5432: want allow by rule something else, got may be resolved by rule db.internal:5432 on line 4: a rule allows the name", results[1].String())
	require.Equal(t, "line 4: tcp:vault.internal:1: denied by rule vault.internal on line 8: a rule denies it", results[2].String())
	text, err := json.Marshal(results[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"service":"tcp","target":"db.internal:5433","allow":true,"rule":"db.internal:5432","line":2,"passed":false,"got":{"allowed":false,"reason":"no rule allows it"}}`, string(text))
}

func TestWhatOnlyAnAuditLetsPassIsADenialInACase(t *testing.T) {
	r := rules(t, casesDocument+"audit_only: true\n")
	for _, result := range policy.RunCases(r, cases(t, `
cases:
  - {target: "other:1", want: deny}
  - {target: "other:1", resolves: [10.0.0.1], want: deny}
  - {target: "web:443", resolves: [11.0.0.1], want: deny}
  - {target: "web:443", resolves: [10.0.0.1], want: allow}
`)) {
		require.True(t, result.Passed, "%s", result)
	}
}

func TestWrongCasesAreRefusedWithTheirLine(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "policy: the file is empty; write cases",
		"cases: {}":                      "policy: line 1: cases must be a list",
		"{}":                             "policy: line 1: cases must be a list",
		"case: []":                       `policy: line 1: unknown key "case"; the keys are cases`,
		"cases:\n  - db:1":               "policy: line 2: expected a mapping with the keys target, service, subject, labels, resolves, want, rule",
		"cases:\n  - {want: allow}":      "policy: line 2: a case needs a target",
		"cases:\n  - {target: \"db:1\"}": "policy: line 2: want must be allow or deny",
		"cases:\n  - {target: \"db:1\", want: yes}":                      "policy: line 2: want must be allow or deny",
		"cases:\n  - {target: \"db:1\", want: deny, expect: x}":          `policy: line 2: unknown key "expect"; the keys are target, service, subject, labels, resolves, want, rule`,
		"cases:\n  - {target: 1, want: deny}":                            "policy: line 2: target must be a string; put it in quotes",
		"cases:\n  - {target: \"db:1\", want: deny, resolves: [\n  x]}":  `policy: line 3: "x" in resolves: it is not an IP address`,
		"cases:\n  - {target: \"db:1\", want: deny, resolves: 10.0.0.1}": "policy: line 2: resolves must be a list",
		"cases:\n  - {target: \"db:1\", want: deny, labels: x}":          "policy: line 2: labels must be a mapping of at least one name to its value",
	} {
		_, err := policy.ParseCases(strings.NewReader(text))
		var bad *policy.SyntaxError
		require.ErrorAs(t, err, &bad, "%q", text)
		require.EqualError(t, err, want)
	}
}

func ExampleRunCases() {
	rules, err := policy.Parse(strings.NewReader("enable_access_restrictions: true\nallowed_endpoints: ['*.prod.internal:443']\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	cases, err := policy.ParseCases(strings.NewReader(`
cases:
  - {target: "api.prod.internal:443", want: allow}
  - {target: "prod.internal:443", want: allow}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, result := range policy.RunCases(rules, cases) {
		if !result.Passed {
			fmt.Fprintln(os.Stdout, result)
		}
	}
	// Output: line 4: tcp:prod.internal:443: want allow, got denied: no rule allows it
}
