package arch

import "go/ast"

// insecureTLS: the one field that turns authentication off. It is legitimate only
// where our own verification takes its place, and each such place is named.
var insecureTLS = rule{
	name: "TLS verification is never turned off",
	check: func(t *tree) (found []finding) {
		for _, s := range t.sources {
			for _, decl := range s.file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					if id, ok := n.(*ast.Ident); ok && id.Name == "InsecureSkipVerify" {
						found = append(found, t.finding(id.Pos(), s.enclosing(decl),
							"turns verification off; verify against roots or pins, or name it with a reason in internal/arch/exceptions_test.go"))
					}
					return true
				})
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name:  "mentioned in a comment and in a text",
			files: map[string]string{"pki/a.go": "package pki\n// InsecureSkipVerify is bad.\nvar s = `InsecureSkipVerify`"},
		},
		{
			name: "set in a literal, in an assignment, in a test, in an example",
			files: map[string]string{
				"examples/go.mod":     "module github.com/outgate/outgate/examples",
				"examples/agent/a.go": "package main\nfunc main() { c.InsecureSkipVerify = true }",
				"pki/a.go":            "package pki\nimport \"crypto/tls\"\nvar c = tls.Config{InsecureSkipVerify: true}",
				"pki/a_test.go":       "package pki\nimport \"crypto/tls\"\nfunc f() { _ = &tls.Config{InsecureSkipVerify: true} }",
			},
			want: []string{"examples/agent.main", "pki/a.go:3: pki:", "pki.f"},
		},
	},
}
