package arch

import (
	"go/ast"
	"io/fs"
	"path"
	"slices"
	"strings"
)

// skips: a skipped test reads like a passed one.
var skips = rule{
	name: "no test is skipped",
	check: func(t *tree) (found []finding) {
		for s := range t.where(func(s *source) bool { return s.test || imports[s.dir].suite }) {
			for _, decl := range s.file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					call, ok := n.(*ast.CallExpr)
					if !ok {
						return true
					}
					sel, ok := call.Fun.(*ast.SelectorExpr)
					if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
						found = append(found, t.finding(call.Pos(), s.enclosing(decl),
							"skips; make it run everywhere, or name it with a reason in internal/arch/exceptions_test.go"))
					}
					return true
				})
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name:  "something else is skipped",
			files: map[string]string{"internal/wire/a.go": "package wire\nfunc f(d D) { d.Skip() }"},
		},
		{
			name: "in a test and in a suite",
			files: map[string]string{
				"examples/go.mod":              "module github.com/outgate/outgate/examples",
				"examples/a_test.go":           "package main\nfunc TestX(t *T) { if short { t.Skip() } }",
				"pki/a_test.go":                "package pki\nfunc TestX(t *T) { t.Run(`y`, func(t *T) { t.Skipf(`later`) }) }",
				"transport/transporttest/a.go": "package transporttest\nfunc Run(t *T) { t.SkipNow() }",
			},
			want: []string{"examples.TestX", "pki.TestX", "transport/transporttest.Run"},
		},
	},
}

// fuzzSeeds: the seeds in testdata run as ordinary tests, on every machine and
// without a fuzzer.
var fuzzSeeds = rule{
	name: "every fuzz target has a committed corpus",
	check: func(t *tree) (found []finding) {
		for s := range t.where(func(s *source) bool { return s.test }) {
			for _, decl := range s.file.Decls {
				fn, ok := decl.(*ast.FuncDecl)
				if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Fuzz") {
					continue
				}
				dir := path.Join(s.dir, "testdata", "fuzz", fn.Name.Name)
				if entries, err := fs.ReadDir(t.fs, dir); err != nil || len(entries) == 0 {
					found = append(found, t.finding(fn.Pos(), s.enclosing(fn), "has no seeds in %s; commit some", dir))
				}
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "with seeds",
			files: map[string]string{
				"policy/a_test.go":                      "package policy\nfunc FuzzParse(f *F) {}",
				"policy/testdata/fuzz/FuzzParse/0a1b2c": "go test fuzz v1\nstring(\"a\")\n",
			},
		},
		{
			name: "without",
			files: map[string]string{
				"policy/a_test.go":                      "package policy\nfunc FuzzParse(f *F) {}",
				"policy/testdata/fuzz/FuzzOther/0a1b2c": "go test fuzz v1\nstring(\"a\")\n",
			},
			want: []string{"policy.FuzzParse: has no seeds in policy/testdata/fuzz/FuzzParse"},
		},
	},
}
