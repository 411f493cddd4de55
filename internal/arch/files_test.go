package arch

import (
	"io/fs"
	"regexp"
	"strings"
)

// changelog: the change that a user notices and its line in CHANGELOG.md arrive
// together, so there is always a place for the line.
var changelog = rule{
	name: "the changelog has an unreleased section on top",
	check: func(t *tree) []finding {
		text, err := fs.ReadFile(t.fs, "CHANGELOG.md")
		if err != nil {
			return []finding{{path: "CHANGELOG.md", subject: "CHANGELOG.md", message: "missing; keep one (keepachangelog.com)"}}
		}
		heading := regexp.MustCompile(`(?m)^## .*$`).FindString(string(text))
		if heading != "## [Unreleased]" {
			return []finding{{path: "CHANGELOG.md", subject: "CHANGELOG.md", message: `the first section is not "## [Unreleased]"; add it, empty if need be`}}
		}
		return nil
	},
	fixtures: []fixture{
		{
			name:  "kept",
			files: map[string]string{"CHANGELOG.md": "# Changelog\n\n## [Unreleased]\n\n### Added\n\n## [0.1.0]\n"},
		},
		{
			name: "missing",
			want: []string{"keep one"},
		},
		{
			name:  "without an unreleased section",
			files: map[string]string{"CHANGELOG.md": "# Changelog\n\n## [0.1.0]\n"},
			want:  []string{"Unreleased"},
		},
		{
			name:  "with the unreleased section at the bottom",
			files: map[string]string{"CHANGELOG.md": "# Changelog\n\n## [0.1.0]\n\n## [Unreleased]\n"},
			want:  []string{"Unreleased"},
		},
	},
}

// apache: pkg.go.dev shows no documentation of a module whose root has no
// licence that it recognises.
var apache = rule{
	name: "the root carries the licence",
	check: func(t *tree) []finding {
		text, err := fs.ReadFile(t.fs, "LICENSE")
		for _, part := range []string{"Apache License", "Version 2.0, January 2004", "END OF TERMS AND CONDITIONS", "The Outgate Authors"} {
			if err != nil || !strings.Contains(string(text), part) {
				return []finding{{path: "LICENSE", subject: "LICENSE", message: "not the full text of the Apache License 2.0 by The Outgate Authors; restore it"}}
			}
		}
		return nil
	},
	fixtures: []fixture{
		{
			name: "missing",
			want: []string{"restore it"},
		},
		{
			name:  "another one",
			files: map[string]string{"LICENSE": "MIT License"},
			want:  []string{"restore it"},
		},
	},
}
