package policy_test

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/policy"
)

func TestWrongDocumentsAreRefusedWithTheirLine(t *testing.T) {
	const on = "enable_access_restrictions: true\nallowed_endpoints:\n"
	for _, tt := range []struct {
		document string
		line     int
		reason   string
	}{
		// Not a document.
		{"", 0, "the document is empty"},
		{"# nothing\n", 0, "the document is empty"},
		{"---\n", 2, "expected a mapping"},
		{"null", 1, "expected a mapping"},
		{"- a", 1, "expected a mapping"},
		{"text", 1, "expected a mapping"},
		{"a: b: c", 0, "mapping values are not allowed"},
		{"denied_endpoints: []\n---\ndenied_endpoints: []", 2, "a second document"},
		{"denied_endpoints: []\n---\n\"", 3, "unexpected end of stream"},
		{"{", 1, "did not find"},
		{strings.Repeat("[", 20_000), 0, "exceeded max depth"},
		{"\xff\xfe\xff", 0, "incomplete UTF-16 character"},
		{"a\x00: b", 0, "control characters are not allowed"},
		{strings.Repeat(" ", policy.MaxDocument) + "{}", 0, "larger than 1048576 bytes"},
		// Keys.
		{"enable_access_restriction: true", 1, `unknown key "enable_access_restriction"`},
		{"denied_endpoints: []\nAllowed_endpoints: []", 2, `unknown key "Allowed_endpoints"`},
		{"policy:\n  denied_endpoints: []", 1, `unknown key "policy"`},
		{"<<: {denied_endpoints: []}", 1, "a key must be a string"},
		{"1: 2", 1, "a key must be a string"},
		{"[a]: 2", 1, "a key must be a string"},
		{"denied_endpoints: []\n\ndenied_endpoints: [a]", 3, `key "denied_endpoints" again; it is on line 1`},
		{"enable_access_restrictions: true\nenable_access_restrictions: false", 2, "again"},
		{`{"enable_access_restrictions": true, "enable_access_restrictions": false}`, 1, "again"},
		{on + "  - {endpoint: a, endpoint: b}", 3, `key "endpoint" again`},
		{on + "  - {endpoint: a, port: 3}", 3, `unknown key "port"`},
		{on + "  - endpoint: a\n    service: tcp\n    services: udp", 5, `unknown key "services"`},
		// Values.
		{"enable_access_restrictions: yes", 1, "must be true or false"},
		{"enable_access_restrictions: \"true\"", 1, "must be true or false"},
		{"enable_access_restrictions: 1", 1, "must be true or false"},
		{"enable_access_restrictions:", 1, "must be true or false"},
		{"enable_access_restrictions: [true]", 1, "must be true or false"},
		{"enable_access_restrictions: !!bool maybe", 1, "must be true or false"},
		{"allowed_endpoints: [a]", 1, "needs enable_access_restrictions"},
		{"denied_endpoints: a", 1, "must be a list"},
		{"denied_endpoints: {a: b}", 1, "must be a list"},
		{"denied_endpoints: &x [a]\nallowed_endpoints: *x", 2, "no anchors"},
		{on + "  - &x a\n  - *x", 4, "an endpoint is a string or a mapping"},
		{on + "  - &x {endpoint: a}\n  - <<: *x", 4, "a key must be a string"},
		{on + "  - *.example.com:443", 3, `an endpoint that begins with a star or a bracket must be in quotes`},
		{on + "  - *a", 0, `an endpoint that begins with a star or a bracket must be in quotes`},
		{on + "  - [::1]:80", 2, "must be in quotes"},
		{on + "  - [a]", 3, "must be in quotes"},
		{on + "  - 5432", 3, "an endpoint must be a string"},
		{on + "  - 127.1", 3, "an endpoint must be a string"},
		{on + "  - true", 3, "an endpoint must be a string"},
		{on + "  - null", 3, "an endpoint must be a string"},
		{on + "  - !!binary YQ==", 3, "an endpoint must be a string"},
		{on + "  - !x a", 3, "an endpoint must be a string"},
		{on + "  - ok\n  -\n", 4, "an endpoint must be a string"},
		{on + "  - {service: tcp}", 3, "a rule that allows tcp needs an endpoint"},
		{on + "  - {service: unix}", 3, "the path of the socket"},
		{on + "  - {}", 3, "a rule needs an endpoint"},
		{on + "  - {allow_special: true}", 3, "a rule needs an endpoint"},
		{"denied_endpoints:\n  - {}", 2, "a rule needs an endpoint"},
		{on + "  - {endpoint: [a], service: tcp}", 3, "an endpoint must be a string"},
		{on + "  - {endpoint: a, service: 1}", 3, "service must be a string"},
		{on + "  - {endpoint: a, service: \"\"}", 3, "the service is unknown"},
		{on + "  - {endpoint: a, service: TCP}", 3, "the service is unknown"},
		{on + "  - {endpoint: a, service: https}", 3, "the service is unknown"},
		{on + "  - {endpoint: a, service: kube}", 3, "the service is unknown"},
		{on + "  - {service: Example.com/x}", 3, "a product's service"},
		{on + "  - {endpoint: a, allow_special: yes}", 3, "must be true or false"},
		{on + "  - {endpoint: a, allow_special: true}", 3, "one IP address"},
		{on + "  - {endpoint: \"*:80\", allow_special: true}", 3, "one IP address"},
		{on + "  - {endpoint: \"*.a:80\", allow_special: true}", 3, "one IP address"},
		{on + "  - {endpoint: 127.0.0.0/8, allow_special: true}", 3, "one IP address"},
		{on + "  - {endpoint: 127.0.0.0/31, allow_special: true}", 3, "one IP address"},
		{on + "  - {endpoint: /x, service: unix, allow_special: true}", 3, "one IP address"},
		{on + "  - {service: example.com/x, allow_special: true}", 3, "one IP address"},
		{"denied_endpoints:\n  - {endpoint: 127.0.0.1, allow_special: true}", 2, "belongs to allowed_endpoints"},
		{"denied_endpoints:\n  - {endpoint: 127.0.0.1, allow_special: false}", 2, "belongs to allowed_endpoints"},
		// Patterns.
		{on + "  - \"\"", 3, "is empty"},
		{on + "  - \"*\"", 3, "enable_access_restrictions: false"},
		{on + "  - \"*:*\"", 3, "the port"},
		{on + "  - \"*:0\"", 3, "the port"},
		{on + "  - \"db:\"", 3, "the port"},
		{on + "  - \"db:*\"", 3, "the port"},
		{on + "  - \"db:080\"", 3, "the port"},
		{on + "  - \"db:+80\"", 3, "the port"},
		{on + "  - \"db:90-80\"", 3, "from the lower to the higher"},
		{on + "  - \"db:80-80\"", 3, "from the lower to the higher"},
		{on + "  - \"db:80-\"", 3, "the port"},
		{on + "  - \"db:-80\"", 3, "the port"},
		{on + "  - \"db:80-90-99\"", 3, "the port"},
		{on + "  - \"db:80-080\"", 3, "the port"},
		{on + "  - \"db:80-65536\"", 3, "the port"},
		{on + "  - \"10.0.0.0/8:0-1\"", 3, "the port"},
		{on + "  - {endpoint: db:1, service: icmp}", 3, "icmp has no ports"},
		{on + "  - {endpoint: db:1-2, service: icmp}", 3, "icmp has no ports"},
		{on + "  - {service: icmp}", 3, "needs an endpoint"},
		{on + "  - {endpoint: db, subjects: alice}", 3, "subjects must be a list"},
		{on + "  - {endpoint: db, subjects: []}", 3, "name somebody"},
		{on + "  - {endpoint: db, subjects: [1]}", 3, "must be a string"},
		{on + "  - {endpoint: db, subjects: ['']}", 3, "it is empty"},
		{on + "  - {endpoint: db, subjects: [\"a\\nb\"]}", 3, "not printable"},
		{on + "  - {endpoint: db, subjects: [" + strings.Repeat("a", 257) + "]}", 3, "longer than 256 bytes"},
		{on + "  - {endpoint: db, labels: [a]}", 3, "labels must be a mapping"},
		{on + "  - {endpoint: db, labels: {}}", 3, "labels must be a mapping"},
		{on + "  - {endpoint: db, labels: {a: 1}}", 3, "must be a string"},
		{on + "  - {endpoint: db, labels: {a: b, a: c}}", 3, "again"},
		{on + "  - {endpoint: db, labels: {a: ''}}", 3, "it is empty"},
		{on + "audit_only: yes", 3, "audit_only must be true or false"},
		{"audit_only: true", 1, "needs enable_access_restrictions"},
		{"enable_access_restrictions: false\naudit_only: true", 2, "needs enable_access_restrictions"},
		{"kubernetes: true", 1, "expected a mapping"},
		{"kubernetes:\n  allowed_namespace: [a]", 2, "unknown key"},
		{"kubernetes:\n  read_only: no", 2, "must be true or false"},
		{"kubernetes:\n  allowed_namespaces: production", 2, "must be a list"},
		{"kubernetes:\n  allowed_namespaces:\n    - Production", 3, "a namespace is"},
		{"kubernetes:\n  allowed_namespaces: ['*']", 2, "a namespace is"},
		{"kubernetes:\n  deny_resources: [Secrets]", 2, "a resource is written"},
		{"kubernetes:\n  deny_resources: [secrets/]", 2, "a resource is written"},
		{"kubernetes:\n  deny_resources: [deployments.]", 2, "a resource is written"},
		{"kubernetes:\n  allowed_verbs: [read]", 2, "the verbs are create"},
		{"kubernetes:\n  allowed_verbs: [get, delete]", 2, "read_only: false"},
		{"{\n  \"enable_access_restrictions\": true,\n  \"allowed_endpoints\": [\n    \"db\\/x\",\n    \"b:1\"\n  ],\n  \"denied_endpoints\": []\n}", 4, "not an address prefix"},
		{"{\n  \"enable_access_restrictions\": true,\n  \"denied\": [\"a\\/b\"]\n}", 3, "unknown key"},
		{on + "  - \"db:65536\"", 3, "the port"},
		{on + "  - \"10.0.0.0/8:\"", 3, "the port"},
		{on + "  - \"[::1]:\"", 3, "the port"},
		{on + "  - \":80\"", 3, "the host is missing"},
		{on + "  - \"*.\"", 3, "the host is missing"},
		{on + "  - \"*.*.a\"", 3, "a star stands for"},
		{on + "  - \"**.a\"", 3, "a star stands for"},
		{on + "  - \"*a\"", 3, "a star stands for"},
		{on + "  - \"a*\"", 3, "a star stands for"},
		{on + "  - \"a.*\"", 3, "a star stands for"},
		{on + "  - \"a.*.b\"", 3, "a star stands for"},
		{on + "  - \"*.10.0.0.1\"", 3, "a star does not go with an IP address"},
		{on + "  - \"*.1\"", 3, "a star does not go with an IP address"},
		{on + "  - \"*..a\"", 3, "empty label"},
		{on + "  - \"a b\"", 3, "a byte that is not"},
		{on + "  - bücher.example", 3, "a byte that is not"},
		{on + "  - XN--a.example", 3, "lower case"},
		{on + "  - \"127.1\"", 3, "ends in a number"},
		{on + "  - \"0x7f.1:80\"", 3, "ends in a number"},
		{on + "  - 10.0.0.01", 3, "ends in a number"},
		{on + "  - 10.0.0.1/8", 3, "write 10.0.0.0/8"},
		{on + "  - 2001:db8::1/32", 3, "write 2001:db8::/32"},
		{on + "  - 10.0.0.0/33", 3, "not an address prefix"},
		{on + "  - 10.0.0.0/08", 3, "not an address prefix"},
		{on + "  - 10.0.0.0/", 3, "not an address prefix"},
		{on + "  - 10/8", 3, "not an address prefix"},
		{on + "  - example.com/x", 3, "a product's service is written"},
		{on + "  - ::ffff:10.0.0.0/104", 3, "the IPv4 prefix"},
		{on + "  - 2001:db8::/32:443", 3, "[2001:db8::/32]:443"},
		{on + "  - fe80::1%eth0", 3, "zone"},
		{on + "  - fe80::%eth0/64", 3, "not an address prefix"},
		{on + "  - \"[::1%lo]:80\"", 3, "zone"},
		{on + "  - \"[::1]\"", 3, "brackets"},
		{on + "  - \"[10.0.0.1]:80\"", 3, "brackets"},
		{on + "  - \"[db]:80\"", 3, "brackets"},
		{on + "  - \"[::1\"", 3, "brackets"},
		{on + "  - \":::\"", 3, "not an IPv6 address"},
		{on + "  - /run/x.sock", 3, "service: unix"},
		{on + "  - {endpoint: /run/../x, service: unix}", 3, "clean"},
		{on + "  - {endpoint: \"@x\", service: unix}", 3, "absolute"},
		{on + "  - {endpoint: ü, service: example.com/x}", 3, "printable"},
		{on + "  - " + strings.Repeat("a", 100_000), 3, "too long"},
		{on + "  - {endpoint: a, service: " + strings.Repeat("a", 100_000) + "}", 3, "the service is unknown"},
		{strings.Repeat("a", 1_000) + ": 1", 1, "unknown key"},
	} {
		got, err := policy.Parse(strings.NewReader(tt.document))
		show := tt.document[:min(len(tt.document), 120)]
		var bad *policy.SyntaxError
		if assert.ErrorAs(t, err, &bad, "%q", show) {
			assert.Equal(t, tt.line, bad.Line, "%q: %v", show, err)
			assert.Contains(t, bad.Reason, tt.reason, "%q", show)
			assert.Less(t, len(bad.Reason), 500, "the text is bounded")
			assert.Nil(t, got)
		}
	}
}

func TestASyntaxErrorReadsLikeOne(t *testing.T) {
	_, err := policy.Parse(strings.NewReader(""))
	require.EqualError(t, err, "policy: the document is empty; write enable_access_restrictions: true or false")
	_, err = policy.Parse(strings.NewReader("denied_endpoints:\n  - 127.1.2"))
	require.EqualError(t, err, `policy: line 2: endpoint "127.1.2": `+"a name that ends in a number can be read as an IPv4 address; write an address in its usual form, without leading zeros")
}

func TestGoodDocuments(t *testing.T) {
	for _, document := range []string{
		"{}",
		"enable_access_restrictions: false",
		"enable_access_restrictions: true",
		"enable_access_restrictions: true\nallowed_endpoints:",
		"enable_access_restrictions: false\nallowed_endpoints: [a]",
		"allowed_endpoints: []\ndenied_endpoints: null",
		"denied_endpoints: [a, a, {endpoint: a}]",
		"denied_endpoints: [{service: udp}, {service: unix}, {service: example.com/x}]",
		"\ufeffenable_access_restrictions: true",
		"---\nenable_access_restrictions: true\n...\n",
		"{\n\t\"enable_access_restrictions\": true,\n\t\"allowed_endpoints\": [\n\t\t\"*.a:1\",\n\t\t{\"endpoint\": \"127.0.0.1\", \"allow_special\": true, \"service\": \"tcp\"}\n\t]\n}\n",
		`{"enable_access_restrictions":true,"allowed_endpoints":[{"endpoint":"/run/\u0078.sock","service":"unix"}]}`,
		`{"enable_access_restrictions":true,"allowed_endpoints":["10.0.0.0\/8:80",{"endpoint":"\/run\/a\\\/b","service":"unix"}]}`,
		"enable_access_restrictions: true\naudit_only: true\nallowed_endpoints: ['*:1-65535', '[::/0]:7-9', {endpoint: db, service: icmp, subjects: [Zoë, bob, bob], labels: {env: 'a \"b\"', zone: ü}}]",
		"kubernetes: {}",
		"kubernetes: {read_only: false, allowed_namespaces: [], deny_resources: [secrets, pods/exec, deployments.apps/scale, a.b.c], allowed_verbs: [watch, delete]}",
		"enable_access_restrictions: true\nallowed_endpoints:\n  - {endpoint: '/run/a \"b\" \\ c', service: unix}\n  - {endpoint: 'a: #b', service: example.com/x}",
	} {
		first, err := policy.Parse(strings.NewReader(document))
		require.NoError(t, err, document)
		second, err := policy.Parse(strings.NewReader(first.String()))
		require.NoError(t, err, first.String())
		require.Equal(t, first.String(), second.String())
		require.Equal(t, first.Digest(), second.Digest())
	}
}

func TestTheDigestIsOfTheMeaning(t *testing.T) {
	a := rules(t, "enable_access_restrictions: true\nallowed_endpoints: [b, 'A.', '10.0.0.1/32', b]\ndenied_endpoints: [x]")
	b := rules(t, "# comment\ndenied_endpoints:\n  - {endpoint: X}\nallowed_endpoints:\n  - 10.0.0.1\n  - a\n  - {endpoint: b, allow_special: false}\nenable_access_restrictions: true")
	c := rules(t, "enable_access_restrictions: true\nallowed_endpoints: [b, 'A.', '10.0.0.1/32', x]\ndenied_endpoints: [b]")
	require.Equal(t, a.String(), b.String())
	require.Equal(t, a.Digest(), b.Digest())
	require.NotEqual(t, a.Digest(), c.Digest())
	require.Regexp(t, `^sha256:[0-9a-f]{64}$`, a.Digest())
	require.Equal(t, "sha256:dd72eb3dc06f6ea4958bd5ec55816a76abe73e8c636e6d2d28af8b23706927c0", a.Digest(), "agents and gateways of other versions compare it")
	require.Equal(t, rules(t, "enable_access_restrictions: true").Digest(), (*policy.Rules)(nil).Digest(), "both deny everything")
}

func TestParsePassesOnTheErrorOfItsReader(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := policy.Parse(io.MultiReader(strings.NewReader("denied_endpoints: []"), iotest.ErrReader(broken)))
	require.ErrorIs(t, err, broken)
	var bad *policy.SyntaxError
	require.NotErrorAs(t, err, &bad)
}

func TestTheDocumentInThePackageCommentIsOne(t *testing.T) {
	text, err := os.ReadFile("doc.go")
	require.NoError(t, err)
	var document strings.Builder
	for line := range strings.Lines(string(text)) {
		code, isCode := strings.CutPrefix(line, "//\t")
		if isCode && (document.Len() > 0 || strings.HasPrefix(code, "enable_access_restrictions")) {
			document.WriteString(code)
		} else if document.Len() > 0 {
			break
		}
	}
	r := rules(t, document.String())
	require.Equal(t, 12, r.Explain(ask(t, "tcp vault.prod.internal:443")).Line, "%s", &document)
	require.True(t, r.Kubernetes().AllowsNamespace("production"))
}
