package policy_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

func TestARuleMayBeForSomeSubjectsAndAgentsOnly(t *testing.T) {
	r := rules(t, `
enable_access_restrictions: true
allowed_endpoints:
  - {endpoint: db:5432, subjects: [bob, alice]}
  - {endpoint: db:5432, labels: {env: test}}
  - {endpoint: 10.0.0.0/8, subjects: [alice], labels: {env: prod, zone: a}}
  - {service: example.com/x, subjects: [alice]}
  - {endpoint: /x, service: unix, subjects: [alice]}
  - {endpoint: 127.0.0.1, subjects: [alice], allow_special: true}
denied_endpoints:
  - {endpoint: 10.9.0.0/16, subjects: [alice]}
  - {service: udp, subjects: [alice]}
`)
	test, prod, half := map[string]string{"env": "test"}, map[string]string{"env": "prod", "zone": "a", "more": "x"}, map[string]string{"env": "prod"}
	for _, tt := range []struct {
		target, subject string
		labels          map[string]string
		allowed         bool
	}{
		{"tcp db:5432", "alice", nil, true},
		{"tcp db:5432", "bob", nil, true},
		{"tcp db:5432", "carol", nil, false},
		{"tcp db:5432", "", nil, false},
		{"tcp db:5432", "Alice", nil, false},
		{"tcp db:5432", "carol", test, true},
		{"tcp db:5432", "carol", prod, false},
		{"tcp 10.0.0.1:1", "alice", prod, true},
		{"tcp 10.0.0.1:1", "alice", half, false},
		{"tcp 10.0.0.1:1", "bob", prod, false},
		{"tcp any:1", "alice", prod, true},
		{"tcp any:1", "bob", prod, false},
		{"tcp any:1 => 10.0.0.1", "alice", prod, true},
		{"tcp 10.9.0.1:1", "alice", prod, false},
		{"udp db:5432", "alice", nil, false},
		{"udp db:5432", "bob", nil, true},
		{"example.com/x a", "alice", nil, true},
		{"example.com/x a", "bob", nil, false},
		{"unix /x", "alice", nil, true},
		{"unix /x", "bob", nil, false},
		{"tcp 127.0.0.1:1", "alice", nil, true},
		{"tcp 127.0.0.1:1", "bob", nil, false},
	} {
		req := ask(t, tt.target)
		req.Subject, req.Labels = tt.subject, tt.labels
		require.Equal(t, tt.allowed, r.Explain(req).Allowed, "%+v: %s", tt, r.Explain(req))
	}
	req := ask(t, "tcp db:5432")
	req.Subject = "bob"
	require.Equal(t, "may be resolved by rule db:5432 for subjects alice, bob on line 4: a rule allows the name", r.Explain(req).String())
	req = ask(t, "tcp 10.0.0.1:1")
	req.Subject, req.Labels = "alice", prod
	require.Equal(t, "10.0.0.0/8 for subjects alice for agents with env=prod, zone=a", r.Explain(req).Rule)
	require.Equal(t, r.String(), rules(t, r.String()).String())
}

func TestAuditOnlyReportsWhatTheAllowListWouldDeny(t *testing.T) {
	document := `
allowed_endpoints: [db:5432, {endpoint: 10.0.0.0/8, service: udp}]
denied_endpoints: [vault, 10.9.0.0/16]
enable_access_restrictions: true
audit_only: `
	audited, strict := rules(t, document+"true"), rules(t, document+"false")
	for s, want := range map[string]policy.Decision{
		"tcp db:5432":             {Allowed: true, Pending: true, Rule: "db:5432", Line: 2, Reason: "a rule allows the name"},
		"tcp db:5432 => 11.0.0.1": {Allowed: true, Rule: "db:5432", Line: 2, Reason: "a rule allows the name"},
		"tcp web:80":              {Allowed: true, Pending: true, WouldDeny: true, Reason: "no rule allows it; audit_only lets it pass"},
		"tcp web:80 => 11.0.0.1":  {Allowed: true, WouldDeny: true, Reason: "no rule allows it; audit_only lets it pass"},
		"udp web:80":              {Allowed: true, Pending: true, Rule: "10.0.0.0/8 for service udp", Line: 2, Reason: "a rule may allow the address"},
		"udp web:80 => 11.0.0.1":  {Allowed: true, WouldDeny: true, Reason: "no rule allows it; audit_only lets it pass"},
		"example.com/x a":         {Allowed: true, WouldDeny: true, Reason: "no rule allows it; audit_only lets it pass"},
		// What is denied by name or is special stays denied.
		"tcp vault:1":            {Rule: "vault", Line: 3, Reason: "a rule denies it"},
		"tcp web:80 => 10.9.0.1": {Rule: "10.9.0.0/16", Line: 3, Reason: "a rule denies it"},
		"tcp web:80 => 127.0.0.1": {
			Reason: "the address is special (loopback): only a rule for exactly this address with allow_special opens it",
		},
		"unix /x": {Reason: "a unix socket needs a rule that names it"},
	} {
		req := ask(t, s)
		require.Equal(t, want, audited.Explain(req), s)
		require.Equal(t, want.Allowed, audited.Authorize(t.Context(), req) == nil, s)
		require.Equal(t, want.WouldDeny, audited.WouldDeny(req) != nil, s)
		require.Equal(t, want.Allowed && !want.WouldDeny, strict.Authorize(t.Context(), req) == nil, s)
		require.Nil(t, strict.WouldDeny(req))
	}
	denied := audited.WouldDeny(ask(t, "tcp web:80 => 11.0.0.1"))
	require.EqualError(t, denied, "policy: tcp:web:80 denied at 11.0.0.1: no rule allows it")
	require.ErrorIs(t, denied, transport.Denied)
	require.NotEqual(t, audited.Digest(), strict.Digest())
}

func TestADecisionIsJSON(t *testing.T) {
	r := rules(t, "enable_access_restrictions: true\naudit_only: true\nallowed_endpoints: [db]\ndenied_endpoints: [web]\n")
	for s, want := range map[string]string{
		"tcp db:1":  `{"allowed":true,"pending":true,"rule":"db","line":3,"reason":"a rule allows the name"}`,
		"tcp web:1": `{"allowed":false,"rule":"web","line":4,"reason":"a rule denies it"}`,
		"tcp x:1":   `{"allowed":true,"pending":true,"would_deny":true,"reason":"no rule allows it; audit_only lets it pass"}`,
	} {
		text, err := json.Marshal(r.Explain(ask(t, s)))
		require.NoError(t, err)
		require.JSONEq(t, want, string(text))
	}
}

func TestTheKubernetesBlockIsAView(t *testing.T) {
	var none *policy.Kubernetes
	require.Nil(t, rules(t, "{}").Kubernetes())
	require.Nil(t, (*policy.Rules)(nil).Kubernetes())
	for _, tt := range []struct {
		k          *policy.Kubernetes
		readOnly   bool
		verbs      string
		namespaces string // of "", production, monitoring, other
		resources  string // denied ones
	}{
		{none, true, "", "", "secrets pods pods/exec apps/deployments apps/deployments/scale"},
		{rules(t, "kubernetes: {}").Kubernetes(), true, "get list watch", "* production monitoring other", ""},
		{
			rules(t, "kubernetes: {allowed_namespaces: [production, monitoring], deny_resources: [secrets]}").Kubernetes(),
			true, "get list watch", "production monitoring", "secrets",
		},
		{
			rules(t, "kubernetes: {allowed_namespaces: [], read_only: false, deny_resources: [pods/exec, deployments.apps]}").Kubernetes(),
			false, "get list watch create delete deletecollection patch update", "", "pods/exec apps/deployments apps/deployments/scale",
		},
		{
			rules(t, "kubernetes: {read_only: false, allowed_verbs: [get, delete], deny_resources: [pods, deployments/scale]}").Kubernetes(),
			false, "get delete", "* production monitoring other", "pods pods/exec apps/deployments/scale",
		},
	} {
		require.Equal(t, tt.readOnly, tt.k.ReadOnly())
		got := ""
		for _, verb := range []string{"get", "list", "watch", "create", "delete", "deletecollection", "patch", "update", "impersonate", ""} {
			if tt.k.AllowsVerb(verb) {
				got += " " + verb
			}
		}
		require.Equal(t, tt.verbs, trim(got))
		got = ""
		for _, ns := range []string{"", "production", "monitoring", "other"} {
			if tt.k.AllowsNamespace(ns) {
				got += " " + map[bool]string{true: "*", false: ns}[ns == ""]
			}
		}
		require.Equal(t, tt.namespaces, trim(got))
		got = ""
		for _, r := range [][3]string{{"", "secrets", ""}, {"", "pods", ""}, {"", "pods", "exec"}, {"apps", "deployments", ""}, {"apps", "deployments", "scale"}} {
			if tt.k.DeniesResource(r[0], r[1], r[2]) {
				name := r[1]
				if r[0] != "" {
					name = r[0] + "/" + name
				}
				if r[2] != "" {
					name += "/" + r[2]
				}
				got += " " + name
			}
		}
		require.Equal(t, tt.resources, trim(got))
	}
}

func trim(s string) string {
	if s == "" {
		return s
	}
	return s[1:]
}

func ExampleRules_Kubernetes() {
	r, err := policy.Parse(strings.NewReader(`
kubernetes:
  allowed_namespaces: [production, monitoring]
  deny_resources: [secrets]
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	k := r.Kubernetes()
	fmt.Println(k.AllowsVerb("list"), k.AllowsVerb("delete"), k.AllowsNamespace("production"), k.AllowsNamespace("kube-system"), k.DeniesResource("", "secrets", ""))
	// Output: true false true false true
}
