package arch

import (
	"go/ast"
	"go/doc/comment"
	"path"
	"slices"
	"strings"
)

// packageDocs: godoc joins the package comments of all files in an order that
// nobody chose, so there is one; and a licence is no documentation.
var packageDocs = rule{
	name: "every package has one package comment",
	check: func(t *tree) (found []finding) {
		byDir := map[string][]*source{}
		for s := range t.where(func(s *source) bool { return s.module == "." || s.module == "examples" }) {
			byDir[s.dir] = append(byDir[s.dir], s)
		}
		for _, sources := range byDir {
			found = append(found, packageDocFaults(t, sources)...)
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "well documented packages",
			files: map[string]string{
				"pki/doc.go":              "// Package pki admits agents.\n//\n//\tx := 1\n//\n// # Not here\n//\n// Tunnels.\npackage pki",
				"pki/a.go":                "package pki",
				"pki/a_test.go":           "package pki_test",
				"internal/mux/mux.go":     "// Package mux carries streams.\npackage mux",
				"examples/go.mod":         "module github.com/outgate/outgate/examples",
				"examples/agent/doc.go":   "// Command agent is the reference agent.\npackage main",
				"internal/arch/a_test.go": "package arch",
			},
		},
		{
			name:  "none",
			files: map[string]string{"internal/mux/a.go": "package mux", "internal/mux/b.go": "package mux"},
			want:  []string{"no package comment"},
		},
		{
			name:  "detached by a blank line",
			files: map[string]string{"internal/mux/a.go": "// Package mux carries streams.\n\npackage mux"},
			want:  []string{"no package comment"},
		},
		{
			name: "two",
			files: map[string]string{
				"internal/mux/a.go": "// Package mux carries streams.\npackage mux",
				"internal/mux/b.go": "// Package mux carries more streams.\npackage mux",
			},
			want: []string{"b.go:2: internal/mux: a second package comment"},
		},
		{
			name:  "a licence",
			files: map[string]string{"internal/mux/a.go": "// Package mux is Copyright 2026 of its authors.\npackage mux"},
			want:  []string{"licence"},
		},
		{
			name: "another first word",
			files: map[string]string{
				"internal/mux/a.go":   "// Mux carries streams.\npackage mux",
				"examples/go.mod":     "module github.com/outgate/outgate/examples",
				"examples/agent/a.go": "// Package main is the agent.\npackage main",
			},
			want: []string{`start it with "Command agent "`, `start it with "Package mux "`},
		},
		{
			name:  "a public package without usage, limits and doc.go",
			files: map[string]string{"pki/a.go": "// Package pki admits agents.\npackage pki"},
			want:  []string{"doc.go", "Not here", "code block"},
		},
	},
}

func packageDocFaults(t *tree, sources []*source) (found []finding) {
	sources = slices.DeleteFunc(slices.Clone(sources), func(s *source) bool { return s.test })
	if len(sources) == 0 {
		return nil
	}
	var documented []*source
	for _, s := range sources {
		if s.file.Doc != nil {
			documented = append(documented, s)
		}
	}
	first := sources[0]
	if len(documented) == 0 {
		return []finding{t.finding(first.file.Package, first.name(), "no package comment; write one right above the package clause of doc.go")}
	}
	for _, s := range documented[1:] {
		found = append(found, t.finding(s.file.Package, s.name(), "a second package comment; %s has one, merge them", documented[0].path))
	}
	return append(found, packageCommentFaults(t, documented[0])...)
}

func packageCommentFaults(t *tree, s *source) (found []finding) {
	fault := func(format string, args ...any) {
		found = append(found, t.finding(s.file.Package, s.name(), format, args...))
	}
	text := s.file.Doc.Text()
	start := "Package " + s.file.Name.Name + " "
	if s.file.Name.Name == "main" {
		start = "Command " + path.Base(s.dir) + " "
	}
	if !strings.HasPrefix(text, start) {
		fault("the package comment tells no reader what this is; start it with %q", start)
	}
	if strings.Contains(text, "Copyright") || strings.Contains(text, "Licensed under") {
		fault("the package comment is a licence; part it from the package clause by a blank line")
	}
	if s.module != "." || within(s.dir, "internal") {
		return found
	}
	if path.Base(s.path) != "doc.go" {
		fault("the comment of a public package belongs in doc.go, where readers look for it")
	}
	if s.dir == "." {
		return found
	}
	if !strings.Contains(text, "\n# Not here\n") {
		fault(`the comment of a public package ends with a "# Not here" heading: what belongs elsewhere, and where`)
	}
	if !hasCode(s.file.Doc) {
		fault("the comment of a public package shows its use in an indented code block")
	}
	return found
}

func hasCode(doc *ast.CommentGroup) bool {
	var p comment.Parser
	return slices.ContainsFunc(p.Parse(doc.Text()).Content, func(b comment.Block) bool {
		_, code := b.(*comment.Code)
		return code
	})
}
