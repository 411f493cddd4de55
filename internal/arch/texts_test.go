package arch

import (
	"bytes"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// unwelcome are patterns that no text of the project contains. Each is written so
// that it does not match itself.
var unwelcome = []struct {
	pattern *regexp.Regexp
	tests   bool // tests may have it
	advice  string
}{
	{regexp.MustCompile(`(^|[^\w.])/(work|root|Users)/\w`), false, "a path of somebody's machine; name it relative to the repository"},
	{regexp.MustCompile(`(^|[^\w.])/home/\w`), true, "a path of somebody's machine; name it relative to the repository"},
	{regexp.MustCompile(`(^|[^\w.])/tmp/\w`), true, "a path that is not ours to choose; ask for a temporary directory"},
	{regexp.MustCompile(`\bDESIGN( section|\.md|\s\d)|\bstudy/\w+\.md`), false, "a note that readers do not have; say it here or in an ADR"},
	{regexp.MustCompile(`(?i)\b(chat[g]pt|cl[a]ude|language [m]odel|ai [a]ssistant|ai-gener[a]ted)\b`), false, "speaks of how the text was made; speak of the project"},
	{regexp.MustCompile(`^(<{7} |>{7} )`), false, "a conflict that nobody resolved"},
}

const maxText = 1 << 20

var texts = rule{
	name: "texts speak of the project alone",
	check: func(t *tree) (found []finding) {
		err := fs.WalkDir(t.fs, ".", func(name string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			switch {
			case d.IsDir() && (name == ".git" || name == "bin" || path.Base(name) == "node_modules"):
				return fs.SkipDir
			case name == ".git": // of a worktree: a file that names another place
				return nil
			}
			if info, err := d.Info(); err != nil || !info.Mode().IsRegular() || info.Size() > maxText || path.Base(name) == "go.sum" {
				return err
			}
			text, err := fs.ReadFile(t.fs, name)
			if err != nil || bytes.IndexByte(text, 0) >= 0 {
				return err
			}
			found = append(found, unwelcomeLines(name, text)...)
			return nil
		})
		if err != nil {
			found = append(found, finding{path: ".", subject: ".", message: err.Error()})
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "ordinary texts",
			files: map[string]string{
				"README.md":           "See https://example.com/work/x, docs/root/a, ./tmp/x and internal/docs/adr/0001-x.md. A conflict of interest.\n=======x\n",
				"pki/a_test.go":       "package pki\nvar p = \"/t" + "mp/x\"",
				"pki/testdata/ps.txt": "/home" + "/alice/agent",
				"bin/agent":           "/wo" + "rk/main",
				"logo.png":            "\x00/wo" + "rk/main",
			},
		},
		{
			name: "machine paths",
			files: map[string]string{
				".ci/run":       "cd /wo" + "rk/main",
				"doc.go":        "// Package outgate; see /ro" + "ot/go.\npackage outgate",
				"pki/a.go":      "package pki\n\nvar dir = \"/t" + "mp/x\"",
				"pki/a_test.go": "package pki\nvar dir = \"/wo" + "rk/x\"",
			},
			want: []string{".ci/run:1", "doc.go:1", "pki/a.go:3", "pki/a_test.go:2"},
		},
		{
			name: "notes and conflicts",
			files: map[string]string{
				"README.md":     "As DESI" + "GN section 4 says.\nA cla" + "ude wrote this.\n" + strings.Repeat("<", 7) + " HEAD\n",
				"pki/README.md": "see stu" + "dy/models.md",
			},
			want: []string{"README.md:1", "README.md:2", "README.md:3: README.md: <<<<<<<: a conflict", "pki/README.md:1"},
		},
	},
}

func unwelcomeLines(name string, text []byte) (found []finding) {
	isTest := strings.HasSuffix(name, "_test.go") || strings.Contains(name, "testdata/")
	n := 0
	for line := range bytes.Lines(text) {
		n++
		line = bytes.TrimRight(line, "\r\n")
		for _, u := range unwelcome {
			if m := u.pattern.Find(line); m != nil && !(u.tests && isTest) {
				found = append(found, finding{path: name, line: n, subject: name, message: strings.TrimSpace(string(m)) + ": " + u.advice})
			}
		}
	}
	return found
}
