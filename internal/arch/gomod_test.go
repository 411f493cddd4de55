package arch

import (
	"fmt"
	"io/fs"
	"slices"
	"strings"
)

// direct are the modules that users of the library inherit. A line here needs an
// ADR: whoever imports one package of ours downloads all of them.
var direct = []string{
	"github.com/coder/websocket",
	"github.com/quic-go/quic-go",
	"github.com/stretchr/testify",
	"github.com/xtaci/smux",
	"go.uber.org/goleak",
	"go.yaml.in/yaml/v3",
	"golang.org/x/net",
	"golang.org/x/sync",
	"golang.org/x/sys",
	"golang.org/x/time",
}

var goMod = rule{
	name: "the root module requires little and replaces nothing",
	check: func(t *tree) (found []finding) {
		fault := func(message string) {
			found = append(found, finding{path: "go.mod", subject: "go.mod", message: message})
		}
		m, err := readGoMod(t.fs)
		if err != nil {
			fault(err.Error())
			return found
		}
		if m.module != modulePath {
			fault("declares module " + m.module + "; it is " + modulePath)
		}
		for _, required := range m.direct {
			if !slices.Contains(direct, required) {
				fault("requires " + required + ", which every user would inherit; do without, move the code to examples, or write an ADR and add it to internal/arch/gomod_test.go")
			}
		}
		for _, replaced := range m.replaced {
			fault("replaces " + replaced + "; users of the module do not get the replacement, require a version that works")
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "allowed",
			files: map[string]string{
				"go.mod":          "module github.com/outgate/outgate\n\ngo 1.26.0\n\nrequire (\n\tgolang.org/x/net v0.62.0\n\tgithub.com/jackc/puddle v1.3.0 // indirect\n)\n",
				"examples/go.mod": "module github.com/outgate/outgate/examples\n\nreplace github.com/outgate/outgate => ../\n",
			},
		},
		{
			name:  "missing",
			files: map[string]string{"README.md": ""},
			want:  []string{"go.mod"},
		},
		{
			name: "a driver, a replacement, another name",
			files: map[string]string{
				"go.mod": "module github.com/outgate/else\n\nrequire github.com/jackc/pgx/v5 v5.7.0\n\nreplace (\n\tgolang.org/x/net => ../net\n)\n",
			},
			want: []string{"declares module", "requires github.com/jackc/pgx/v5", "replaces golang.org/x/net"},
		},
		{
			name: "a driver in a block, a replacement on one line",
			files: map[string]string{
				"go.mod": "module github.com/outgate/outgate\n\nrequire (\n\tgithub.com/jackc/pgx/v5 v5.7.0 // for tests\n)\nreplace golang.org/x/net v0.1.0 => golang.org/x/net v0.2.0\n",
			},
			want: []string{"requires github.com/jackc/pgx/v5", "replaces golang.org/x/net"},
		},
	},
}

type modFile struct {
	module   string
	direct   []string
	replaced []string
}

// readGoMod reads what the rule needs: each line is a verb and its arguments, or
// the arguments alone inside the parentheses of a verb.
func readGoMod(fsys fs.FS) (m modFile, err error) {
	text, err := fs.ReadFile(fsys, "go.mod")
	if err != nil {
		return m, err
	}
	var block string
	for line := range strings.Lines(string(text)) {
		code, comment, _ := strings.Cut(line, "//")
		words := strings.Fields(code)
		switch {
		case len(words) == 0:
			continue
		case words[0] == ")":
			block = ""
			continue
		case len(words) == 2 && words[1] == "(":
			block = words[0]
			continue
		case block != "":
			words = append([]string{block}, words...)
		}
		if len(words) < 2 {
			return m, fmt.Errorf("line %q is no directive", strings.TrimSpace(line))
		}
		name := strings.Trim(words[1], "\"`")
		switch words[0] {
		case "module":
			m.module = name
		case "require":
			if strings.TrimSpace(comment) != "indirect" {
				m.direct = append(m.direct, name)
			}
		case "replace":
			m.replaced = append(m.replaced, name)
		}
	}
	return m, nil
}
