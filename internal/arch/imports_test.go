package arch

import (
	"fmt"
	"slices"
	"strings"
)

// allowance is what a package may import beside the standard library. It holds
// for its tests too, which may also import our other packages and testLibraries.
type allowance struct {
	own   []string // directories; "internal/..." is everything below
	third []string // import path prefixes
	suite bool     // test support: may import "testing", and only tests and suites import it
}

const internal = "internal/..."

// imports is the import picture of the library. Whoever changes a line changes
// the design: an import that is missing here is usually in the wrong package.
var imports = map[string]allowance{
	".": {},

	// What carries a tunnel. Third-party code is confined to the leaves.
	"transport":           {},
	"transport/websocket": {own: []string{"transport", internal}, third: []string{"github.com/coder/websocket", "github.com/xtaci/smux"}},
	"transport/quic":      {own: []string{"transport", internal}, third: []string{"github.com/quic-go/quic-go"}},
	"transport/mem":       {own: []string{"transport", internal}},
	"transport/transporttest": {
		own: []string{"transport", internal}, third: []string{"github.com/stretchr/testify", "golang.org/x/net/nettest"}, suite: true,
	},

	// What decides, and who is who. Neither knows the tunnel.
	"policy":         {own: []string{"transport"}, third: []string{"go.yaml.in/yaml/v3"}},
	"pki":            {own: []string{internal}},
	"pki/kubesecret": {own: []string{"pki"}},
	"pki/pkitest": {
		own: []string{"pki", internal}, third: []string{"github.com/stretchr/testify"}, suite: true,
	},

	// The tunnel: no third-party code, no carrier, not pki, so that a product
	// with its own of either takes only what it uses.
	"tunnel":          {own: []string{"transport", "policy", internal}},
	"tunnel/kube":     {own: []string{"transport", "policy", "tunnel", internal}},
	"tunnel/ingress":  {own: []string{"transport", "policy", "tunnel", internal}},
	"tunnel/postgres": {own: []string{"transport", "policy", "tunnel", internal}},
	"tunnel/fleet":    {own: []string{"transport", "policy", "tunnel", "pki", internal}},
	"tunnel/tunneltest": {
		own:   []string{"transport", "transport/mem", "policy", "tunnel", "pki", internal},
		third: []string{"github.com/stretchr/testify"}, suite: true,
	},
	"probes":        {own: []string{"transport", "policy", "tunnel", internal}, third: []string{"golang.org/x/net"}},
	"probes/script": {own: []string{"transport", "policy", "tunnel", "probes", internal}, third: []string{"golang.org/x/sys"}},

	"internal/arch":    {},
	"internal/wire":    {own: []string{"transport", internal}},
	"internal/cork":    {},
	"internal/mux":     {own: []string{"transport", internal}},
	"internal/splice":  {own: []string{"transport", internal}},
	"internal/testca":  {suite: true},
	"internal/torture": {third: []string{"github.com/quic-go/quic-go"}}, // tests only
	"internal/testnet": {own: []string{"transport", internal}, suite: true},
	"internal/netlab":  {}, // only tests

	"internal/testkube": {suite: true},
}

// testLibraries are what any test may import.
var testLibraries = []string{"github.com/stretchr/testify", "go.uber.org/goleak", "golang.org/x/net/nettest", "golang.org/x/net/dns/dnsmessage"}

var importPicture = rule{
	name: "packages import only what the picture allows",
	check: func(t *tree) (found []finding) {
		for _, s := range t.sources {
			for _, spec := range s.file.Imports {
				if fault := importFault(s, importPath(spec), importName(spec)); fault != "" {
					found = append(found, t.finding(spec.Pos(), s.name(), "%s", fault))
				}
			}
			if _, known := imports[s.dir]; !known && s.module == "." {
				found = append(found, t.finding(s.file.Package, s.name(),
					"a package that the import picture does not name; add it to the table in internal/arch/imports_test.go"))
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "what the table allows",
			files: map[string]string{
				"transport/a.go":           `package transport; import "net"`,
				"transport/quic/a.go":      `package quic; import ("github.com/outgate/outgate/transport"; "github.com/quic-go/quic-go")`,
				"transport/quic/a_test.go": `package quic_test; import ("testing"; "github.com/stretchr/testify/require"; "go.uber.org/goleak"; "github.com/outgate/outgate/internal/testca"; "github.com/outgate/outgate/transport/transporttest")`,
				"internal/testca/a.go":     `package testca; import "testing"`,
				"tunnel/a.go":              `package tunnel; import ("github.com/outgate/outgate/policy"; "github.com/outgate/outgate/internal/wire")`,
				"tunnel/a_test.go":         `package tunnel_test; import "github.com/outgate/outgate/transport/mem"`,
				"examples/go.mod":          "module github.com/outgate/outgate/examples",
				"examples/gateway/main.go": `package main; import ("github.com/spf13/cobra"; "github.com/outgate/outgate/tunnel")`,
			},
		},
		{
			name: "third-party code outside its leaf",
			files: map[string]string{
				"tunnel/a.go":    `package tunnel; import "github.com/quic-go/quic-go"`,
				"transport/a.go": `package transport; import "golang.org/x/net/nettest"`,
				"policy/a.go":    `package policy; import "github.com/coder/websocketish"`,
				"pki/a_test.go":  `package pki; import "github.com/jackc/pgx/v5"`,
			},
			want: []string{"pki: may not import github.com/jackc", "policy: may not import github.com/coder/websocketish", "transport: may not import golang.org/x/net", "tunnel: may not import github.com/quic-go"},
		},
		{
			name: "our packages the wrong way round",
			files: map[string]string{
				"tunnel/a.go":         `package tunnel; import ("github.com/outgate/outgate/pki"; "github.com/outgate/outgate/transport/mem")`,
				"policy/a.go":         `package policy; import "github.com/outgate/outgate/internal/wire"`,
				"transport/a.go":      `package transport; import "github.com/outgate/outgate/policy"`,
				"pki/a_test.go":       `package pki; import "github.com/outgate/outgate/examples/gateway"`,
				"tunnel/fleet/a.go":   `package fleet; import "github.com/outgate/outgate/pki"`,
				"tunnel/ingress/a.go": `package ingress; import "github.com/outgate/outgate"`,
			},
			want: []string{"pki: may not import github.com/outgate/outgate/examples/gateway", "policy: may not import", "transport: may not import", "tunnel/a.go:1: tunnel: may not import github.com/outgate/outgate/pki", "transport/mem", "tunnel/ingress: may not import"},
		},
		{
			name: "test support in library code",
			files: map[string]string{
				"tunnel/a.go":          `package tunnel; import ("testing"; "testing/synctest"; "github.com/outgate/outgate/internal/testca")`,
				"transport/mem/a.go":   `package mem; import "github.com/stretchr/testify/require"`,
				"internal/testca/b.go": `package testca; import "testing"`,
			},
			want: []string{"transport/mem: may not import github.com/stretchr", "testing is for tests", "testing/synctest is for tests", "internal/testca is for tests"},
		},
		{
			name:  "a package that nobody placed",
			files: map[string]string{"helpers/a.go": "package helpers"},
			want:  []string{"add it to the table"},
		},
		{
			name:  "a dot import",
			files: map[string]string{"pki/a.go": `package pki; import . "strings"`},
			want:  []string{"dot import"},
		},
		{
			name: "an example that needs what its reader cannot import",
			files: map[string]string{
				"examples/go.mod":          "module github.com/outgate/outgate/examples",
				"examples/embed/a.go":      `package main; import "github.com/outgate/outgate/internal/splice"`,
				"examples/embed/a_test.go": `package main; import "github.com/outgate/outgate/internal/testca"`,
			},
			want: []string{"examples/embed/a.go:1: examples/embed: may not import github.com/outgate/outgate/internal/splice"},
		},
	},
}

// importFault says what is wrong with an import of s, or nothing.
func importFault(s *source, imported, name string) string {
	dir, ours := own(imported)
	if name == "." {
		return fmt.Sprintf("dot import of %s hides where names come from; import it by name", imported)
	}
	if s.module == "examples" && ours && within(dir, "internal") && !s.test {
		return fmt.Sprintf("may not import %s: a reader who copies the example cannot; offer it in the public API or write it here", imported)
	}
	if s.module != "." {
		return ""
	}
	allowed := imports[s.dir]
	if !s.test && !allowed.suite && (imported == "testing" || strings.HasPrefix(imported, "testing/") || ours && imports[dir].suite) {
		return fmt.Sprintf("%s is for tests; move the code to a _test.go file or a *test package", imported)
	}
	switch {
	case isStd(imported):
		return ""
	case ours && slices.ContainsFunc(allowed.own, func(a string) bool { return matches(dir, a) }):
		return ""
	case ours && s.test && !within(dir, "examples"):
		return ""
	case !ours && slices.ContainsFunc(allowed.third, func(a string) bool { return within(imported, a) }):
		return ""
	case !ours && s.test && slices.ContainsFunc(testLibraries, func(a string) bool { return within(imported, a) }):
		return ""
	}
	return fmt.Sprintf("may not import %s (allowed: %s); move the code to the package that may, or argue for a change of the table in internal/arch/imports_test.go",
		imported, strings.Join(slices.Concat([]string{"std"}, allowed.own, allowed.third), ", "))
}

func matches(dir, pattern string) bool {
	parent, tree := strings.CutSuffix(pattern, "/...")
	if tree {
		return within(dir, parent)
	}
	return dir == pattern
}
