package arch

import (
	"fmt"
	"go/ast"
	"io/fs"
	"regexp"
	"strings"
)

// readmeExamples: what the front page shows compiles and runs, because it is the
// very text of an Example. The marker above each block names it:
//
//	<!-- example: tunnel.ExampleAgent -->
//	```go
var readmeExamples = rule{
	name: "the README shows Examples word for word",
	check: func(t *tree) (found []finding) {
		text, err := fs.ReadFile(t.fs, "README.md")
		if err != nil {
			return []finding{{path: "README.md", subject: "README.md", message: "missing; it is the front page"}}
		}
		for _, b := range goBlocks(string(text)) {
			if message := b.fault(t); message != "" {
				found = append(found, finding{path: "README.md", line: b.line, subject: "README.md", message: message})
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "word for word",
			files: map[string]string{
				"README.md":            "# Outgate\n\n<!-- example: tunnel.ExampleAgent -->\n\n```go\na := 1\nif a > 0 {\n\tb()\n}\n```\n\n```sh\ngo get x\n```\n",
				"tunnel/agent_test.go": "package tunnel_test\n\nfunc ExampleAgent() {\n\ta := 1\n\tif a > 0 {\n\t\tb()\n\t}\n\t// Output:\n\t// b\n}\n",
			},
		},
		{
			name: "missing",
			want: []string{"missing"},
		},
		{
			name:  "a block without a marker",
			files: map[string]string{"README.md": "text\n```go\na := 1\n```\n- item\n  ```golang\n  a\n  ```\n"},
			want:  []string{"README.md:2: README.md: a go block without a marker", "README.md:6"},
		},
		{
			name: "a marker that names nothing, or another package",
			files: map[string]string{
				"README.md":            "<!-- example: tunnel.ExampleAgent -->\n```go\na := 1\n```\n<!-- example: ExampleAgent -->\n```go\na := 1\n```\n",
				"tunnel/agent.go":      "package tunnel\n\nfunc ExampleAgent() {\n\ta := 1\n}\n",
				"policy/agent_test.go": "package policy_test\n\nfunc ExampleAgent() {\n\ta := 1\n}\n",
			},
			want: []string{"no tests of tunnel declare ExampleAgent", "marker"},
		},
		{
			name: "another text",
			files: map[string]string{
				"README.md":            "<!-- example: tunnel.ExampleAgent -->\n```go\na := 1\nb := 2\n```\n",
				"tunnel/agent_test.go": "package tunnel_test\n\nfunc ExampleAgent() {\n\ta := 1\n\tb := 3\n}\n",
			},
			want: []string{`"b := 2", where the Example has "b := 3"`},
		},
		{
			name: "a part only",
			files: map[string]string{
				"README.md":            "<!-- example: tunnel.ExampleAgent -->\n```go\na := 1\n```\n",
				"tunnel/agent_test.go": "package tunnel_test\n\nfunc ExampleAgent() {\n\ta := 1\n\tb := 3\n}\n",
			},
			want: []string{`"", where the Example has "b := 3"`},
		},
		{
			name:  "a block that never ends",
			files: map[string]string{"README.md": "<!-- example: tunnel.ExampleAgent -->\n```go\na := 1\n"},
			want:  []string{"not closed"},
		},
	},
}

var (
	markerLine  = regexp.MustCompile(`^<!-- example: (\S+)\.(Example\w*) -->$`)
	outputStart = regexp.MustCompile(`(?i)^// (unordered )?output:`)
)

type goBlock struct {
	line         int // of its opening fence
	dir, example string
	text         []string
	closed       bool
}

func goBlocks(text string) (blocks []*goBlock) {
	var open *goBlock
	var other bool // inside a block of another language
	var marker []string
	for i, line := range strings.Split(text, "\n") {
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		language, _, _ := strings.Cut(info, " ")
		switch {
		case open != nil && fence:
			open.closed = true
			open = nil
		case open != nil:
			open.text = append(open.text, line)
		case other:
			other = !fence
		case language == "go" || language == "golang":
			open = &goBlock{line: i + 1}
			if marker != nil {
				open.dir, open.example = marker[1], marker[2]
			}
			blocks = append(blocks, open)
			marker = nil
		case fence:
			other, marker = true, nil
		case line != "":
			marker = markerLine.FindStringSubmatch(line)
		}
	}
	return blocks
}

func (b *goBlock) fault(t *tree) string {
	if b.example == "" {
		return `a go block without a marker; put "<!-- example: package/path.ExampleName -->" above it`
	}
	if !b.closed {
		return "a go block that is not closed"
	}
	want, ok := exampleBody(t, b.dir, b.example)
	if !ok {
		return fmt.Sprintf("no tests of %s declare %s; correct the marker or write the Example", b.dir, b.example)
	}
	got := trimBlank(b.text)
	for i := range max(len(got), len(want)) {
		if g, w := at(got, i), at(want, i); g != w {
			return fmt.Sprintf("%s.%s is shown with %q, where the Example has %q; copy the Example", b.dir, b.example, g, w)
		}
	}
	return ""
}

// exampleBody is what godoc shows of an Example: the body without its
// indentation and its expected output.
func exampleBody(t *tree, dir, name string) ([]string, bool) {
	for s := range t.where(func(s *source) bool { return s.test && s.dir == dir }) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Name.Name != name || fn.Recv != nil {
				continue
			}
			from, to := t.fset.Position(fn.Body.Lbrace).Offset, t.fset.Position(fn.Body.Rbrace).Offset
			var body []string
			for line := range strings.Lines(string(s.text[from+1 : to])) {
				line = strings.TrimRight(strings.TrimPrefix(line, "\t"), "\n")
				if outputStart.MatchString(line) {
					break
				}
				body = append(body, line)
			}
			return trimBlank(body), true
		}
	}
	return nil, false
}

func trimBlank(lines []string) []string {
	for len(lines) > 0 && strings.TrimSpace(lines[0]) == "" {
		lines = lines[1:]
	}
	for len(lines) > 0 && strings.TrimSpace(lines[len(lines)-1]) == "" {
		lines = lines[:len(lines)-1]
	}
	return lines
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}
