package arch

import (
	"go/ast"
	"slices"
	"strings"
)

// forbidden are names that library code must not use, and what to do instead.
// The product owns its process: its exit, its environment, its output, its
// default client, its signals.
var forbidden = map[string]string{
	"os.Exit":      "return an error",
	"os.Getenv":    "take it from a config struct",
	"os.LookupEnv": "take it from a config struct",
	"os.Environ":   "take it from a config struct",
	"os.ExpandEnv": "take it from a config struct",
	"os.Setenv":    "the environment belongs to the program",
	"os.Args":      "take it from a config struct",
	"os.Stdin":     "take an io.Reader",
	"os.Stdout":    "take an io.Writer",
	"os.Stderr":    "take an io.Writer or a *slog.Logger",

	"fmt.Print": "return it, or take an io.Writer", "fmt.Printf": "return it, or take an io.Writer", "fmt.Println": "return it, or take an io.Writer",
	"fmt.Scan": "take an io.Reader", "fmt.Scanf": "take an io.Reader", "fmt.Scanln": "take an io.Reader",

	"time.Sleep": "wait on a timer and ctx.Done() together",

	"os/signal.Notify": "take a ctx", "os/signal.NotifyContext": "take a ctx", "os/signal.Ignore": "signals belong to the program",

	"net/http.DefaultClient": "make an *http.Client of its own", "net/http.DefaultTransport": "make an *http.Transport of its own",
	"net/http.Get": "use an *http.Client and a ctx", "net/http.Head": "use an *http.Client and a ctx",
	"net/http.Post": "use an *http.Client and a ctx", "net/http.PostForm": "use an *http.Client and a ctx",
	"net/http.DefaultServeMux": "return an http.Handler", "net/http.Handle": "return an http.Handler", "net/http.HandleFunc": "return an http.Handler",
	"net/http.ListenAndServe": "use an *http.Server that someone shuts down", "net/http.ListenAndServeTLS": "use an *http.Server that someone shuts down",
}

// forbiddenPackages are packages of which library code must not use these names;
// none means all names.
var forbiddenPackages = map[string][]string{
	"log":      nil,
	"flag":     nil,
	"log/slog": {"Default", "SetDefault", "Debug", "DebugContext", "Info", "InfoContext", "Warn", "WarnContext", "Error", "ErrorContext", "Log", "LogAttrs"},
}

var forbiddenCalls = rule{
	name: "library code leaves the process to the program",
	check: func(t *tree) (found []finding) {
		for s := range t.library() {
			for _, decl := range s.file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					switch n := n.(type) {
					case *ast.SelectorExpr:
						if name, advice := forbiddenName(s, n); advice != "" {
							found = append(found, t.finding(n.Pos(), s.enclosing(decl), "uses %s; %s", name, advice))
						}
					case *ast.CallExpr:
						if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "print" || id.Name == "println") {
							found = append(found, t.finding(n.Pos(), s.enclosing(decl), "uses %s; take a *slog.Logger", id.Name))
						}
					}
					return true
				})
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "nothing forbidden, or not in library code",
			files: map[string]string{
				"pki/a.go": `package pki
					import ("fmt"; "log/slog"; "net/http"; "os"; "time")
					// F does not call os.Exit or log.Fatal.
					func F(log *slog.Logger) { log.Info("x"); fmt.Fprintln(nil); os.ReadFile("time.Sleep"); time.NewTimer(1); (&http.Client{}).Get("x") }`,
				"pki/a_test.go":       `package pki; import ("os"; "testing"); func TestMain(m *testing.M) { os.Exit(m.Run()) }`,
				"examples/go.mod":     "module github.com/outgate/outgate/examples",
				"examples/agent/a.go": `package main; import "os"; func main() { os.Exit(1) }`,
			},
		},
		{
			name: "each of them",
			files: map[string]string{"pki/a.go": `package pki
				import ("fmt"; stdlog "log"; "log/slog"; "net/http"; "os"; "os/signal"; "time")
				var home = os.Getenv("HOME")
				type T struct{}
				func (t *T) Run() { os.Exit(1) }
				func f() { stdlog.Printf("x") }
				func g() { slog.Info("x"); slog.New(nil) }
				func h() { wait := time.Sleep; wait(1) }
				func i() { fmt.Println("x") }
				func j() { _ = http.DefaultClient }
				func k() { println("x") }
				func l() { signal.Notify(nil) }`},
			want: []string{
				"a.go:3: pki: uses os.Getenv", "pki.T.Run: uses os.Exit", "pki.f: uses log.Printf", "pki.g: uses log/slog.Info", "pki.h: uses time.Sleep",
				"pki.i: uses fmt.Println", "pki.j: uses net/http.DefaultClient", "pki.k: uses println", "pki.l: uses os/signal.Notify",
			},
		},
	},
}

func forbiddenName(s *source, n *ast.SelectorExpr) (name, advice string) {
	name, ok := s.selector(n)
	if !ok {
		return "", ""
	}
	if advice, ok := forbidden[name]; ok {
		return name, advice
	}
	dot := strings.LastIndexByte(name, '.')
	names, ok := forbiddenPackages[name[:dot]]
	if !ok {
		return "", ""
	}
	switch {
	case len(names) == 0:
		return name, "take a config struct or a *slog.Logger"
	case slices.Contains(names, name[dot+1:]):
		return name, "take a *slog.Logger; nil is silent"
	}
	return "", ""
}

var initFuncs = rule{
	name: "no init functions",
	check: func(t *tree) (found []finding) {
		for s := range t.where(func(s *source) bool { return !s.test && (s.module == "." || s.module == "examples") }) {
			for _, decl := range s.file.Decls {
				if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
					found = append(found, t.finding(fn.Pos(), s.enclosing(fn), "runs before anyone asked; do it in the constructor"))
				}
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name:  "a method of that name",
			files: map[string]string{"pki/a.go": "package pki\ntype T int\nfunc (T) init() {}"},
		},
		{
			name: "in the library and in an example",
			files: map[string]string{
				"examples/go.mod":     "module github.com/outgate/outgate/examples",
				"examples/agent/a.go": "package main\nfunc init() {}",
				"pki/a.go":            "package pki\nfunc init() {}",
			},
			want: []string{"examples/agent.init", "pki.init"},
		},
	},
}

// panics: a fault of ours must not end somebody's process. Suites are tests.
var panics = rule{
	name: "library code does not panic",
	check: func(t *tree) (found []finding) {
		for s := range t.where(func(s *source) bool { return s.module == "." && !s.test && !imports[s.dir].suite }) {
			for _, decl := range s.file.Decls {
				ast.Inspect(decl, func(n ast.Node) bool {
					if call, ok := n.(*ast.CallExpr); ok {
						if id, ok := call.Fun.(*ast.Ident); ok && id.Name == "panic" {
							found = append(found, t.finding(call.Pos(), s.enclosing(decl),
								"panics; return an error, or name it with a reason in internal/arch/exceptions_test.go"))
						}
					}
					return true
				})
			}
		}
		return found
	},
	fixtures: []fixture{{
		name: "a panic",
		files: map[string]string{
			"pki/a.go":                     "package pki\nfunc F() { func() { panic(1) }() }\nfunc (t *T) panic() { t.panic() }\ntype T int",
			"pki/a_test.go":                "package pki\nfunc f() { panic(1) }",
			"transport/transporttest/a.go": "package transporttest\nfunc f() { panic(1) }",
		},
		want: []string{"a.go:2: pki.F: panics"},
	}},
}
