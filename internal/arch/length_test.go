package arch

import "strings"

const maxLines = 600

var fileLength = rule{
	name: "no Go file is longer than 600 lines",
	check: func(t *tree) (found []finding) {
		for _, s := range t.sources {
			if n := s.lines(); n > maxLines {
				found = append(found, t.finding(s.file.Package, s.path, "%d lines; a file is one idea in 100 to 350 lines, split it", n))
			}
		}
		return found
	},
	fixtures: []fixture{{
		name: "600 lines and 601",
		files: map[string]string{
			"pki/a.go":              "package pki" + strings.Repeat("\n", 600),
			"pki/b.go":              "package pki" + strings.Repeat("\n", 600) + "// x",
			"pki/b_test.go":         "package pki" + strings.Repeat("\n", 601),
			"internal/bench/go.mod": "module github.com/outgate/outgate/internal/bench",
			"internal/bench/a.go":   "package bench" + strings.Repeat("\n", 601),
		},
		want: []string{"internal/bench/a.go", "pki/b.go", "pki/b_test.go"},
	}},
}
