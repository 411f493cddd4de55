package arch

import (
	"go/ast"
	"go/token"
)

// signatures: a third-party type in our API would make its major version ours.
// The check reads syntax, so it must fail closed: in the place of a type, a name
// x.Y is third-party unless x is certainly one of our packages or of std.
var signatures = rule{
	name: "no third-party type in an exported signature",
	check: func(t *tree) (found []finding) {
		hidden := hiddenAliases(t)
		for s := range t.public() {
			c := signatureCheck{tree: t, source: s, hidden: hidden[s.dir]}
			for _, decl := range s.file.Decls {
				c.decl(decl)
			}
			found = append(found, c.found...)
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "third-party code behind the API",
			files: map[string]string{"transport/quic/a.go": `package quic
				import ("crypto/tls"; "math/rand/v2"; q "github.com/quic-go/quic-go"; "github.com/outgate/outgate/transport")
				type Dialer struct { TLS *tls.Config; Seed rand.Source; conn *q.Conn; dial func(q.Config) }
				func (d *Dialer) Dial(m transport.Mux) (x transport.Stream) { var c q.Config; _ = c; return }
				func (d *Dialer) use(c *q.Conn) {}
				func Map[K comparable, V any](m map[K]V) []V { return nil }
				type mux struct { *q.Conn }
				func (m mux) Conn() *q.Conn { return m.Conn }
				var local q.Config
				var Zero = Dialer{}`},
		},
		{
			name: "functions and methods",
			files: map[string]string{"transport/quic/a.go": `package quic
				import "github.com/quic-go/quic-go"
				func Dial(c *quic.Config) {}
				func (d *Dialer) Conns() map[string][]*quic.Conn { return nil }
				func Walk(f func(quic.StreamID) error) {}
				func Generic[T quic.Stream](t T) {}
				func Chan() <-chan struct{ C quic.Conn } { return nil }
				type Dialer struct{}`},
			want: []string{"a.go:3: transport/quic.Dial: quic.Config", "a.go:4: transport/quic.Dialer.Conns", "a.go:5", "a.go:6", "a.go:7"},
		},
		{
			name: "types",
			files: map[string]string{"transport/websocket/a.go": `package websocket
				import ("github.com/coder/websocket"; "github.com/xtaci/smux")
				type Config struct { Mux *smux.Config; inner smux.Config }
				type Conn = websocket.Conn
				type Status websocket.StatusCode
				type Opener interface { Open() *smux.Stream; smux.Opener }
				type Embeds struct { *smux.Session }
				type Keyed[K smux.Key] struct{}`},
			want: []string{"a.go:3: transport/websocket.Config: smux.Config", "a.go:4", "a.go:5", "a.go:6", "a.go:6", "a.go:7", "a.go:8"},
		},
		{
			name: "variables and constants",
			files: map[string]string{"transport/websocket/a.go": `package websocket
				import "github.com/xtaci/smux"
				var Default *smux.Config
				var ErrClosed = smux.ErrClosed
				var Config = &smux.Config{Version: 2}
				const Max = smux.Max`},
			want: []string{"a.go:3", "a.go:4", "a.go:5", "a.go:6"},
		},
		{
			name: "an unexported alias in another file",
			files: map[string]string{
				"transport/websocket/a.go": "package websocket\nimport \"github.com/xtaci/smux\"\ntype session = smux.Session",
				"transport/websocket/b.go": "package websocket\nfunc Open() *session { return nil }",
			},
			want: []string{"b.go:2: transport/websocket.Open: session"},
		},
		{
			name: "an import whose name the path does not tell",
			files: map[string]string{"transport/quic/a.go": `package quic
				import "github.com/example/go-strangely-named.v2"
				func Dial(c strange.Config) {}`},
			want: []string{"strange.Config"},
		},
		{
			name:  "a third-party package that hides behind the name of a std one",
			files: map[string]string{"probes/a.go": "package probes\nimport \"golang.org/x/net/context\"\nfunc Run(ctx context.Context) {}"},
			want:  []string{"context.Context"},
		},
		{
			name: "internal packages and examples are free",
			files: map[string]string{
				"internal/mux/a.go":   `package mux; import "github.com/xtaci/smux"; func Open() *smux.Stream { return nil }`,
				"examples/go.mod":     "module github.com/outgate/outgate/examples",
				"examples/agent/a.go": `package main; import "github.com/spf13/cobra"; func Root() *cobra.Command { return nil }`,
			},
		},
	},
}

type signatureCheck struct {
	tree   *tree
	source *source
	hidden map[string]bool // unexported aliases of third-party types in this package
	found  []finding
}

// hiddenAliases are the unexported aliases of third-party types, by directory.
func hiddenAliases(t *tree) map[string]map[string]bool {
	aliases := map[string]map[string]bool{}
	for s := range t.public() {
		for _, decl := range s.file.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.TYPE {
				continue
			}
			for _, spec := range gen.Specs {
				spec := spec.(*ast.TypeSpec)
				c := signatureCheck{tree: t, source: s}
				if spec.Assign.IsValid() && !spec.Name.IsExported() && c.mentions(spec.Type) != "" {
					if aliases[s.dir] == nil {
						aliases[s.dir] = map[string]bool{}
					}
					aliases[s.dir][spec.Name.Name] = true
				}
			}
		}
	}
	return aliases
}

func (c *signatureCheck) decl(decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if recv := receiver(d); d.Name.IsExported() && (recv == "" || ast.IsExported(recv)) {
			c.typ(c.source.enclosing(d), d.Type)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() {
					subject := c.source.name() + "." + spec.Name.Name
					c.fields(subject, spec.TypeParams)
					c.typ(subject, spec.Type)
				}
			case *ast.ValueSpec:
				c.values(spec)
			}
		}
	}
}

func (c *signatureCheck) values(spec *ast.ValueSpec) {
	for _, name := range spec.Names {
		if !name.IsExported() {
			continue
		}
		subject := c.source.name() + "." + name.Name
		c.typ(subject, spec.Type)
		if spec.Type == nil {
			for _, v := range spec.Values { // the value gives the type
				c.typ(subject, typeGiver(v))
			}
		}
	}
}

// typeGiver is the part of a value that decides its type, as far as syntax tells.
func typeGiver(e ast.Expr) ast.Expr {
	switch x := e.(type) {
	case *ast.UnaryExpr:
		return typeGiver(x.X)
	case *ast.ParenExpr:
		return typeGiver(x.X)
	case *ast.CompositeLit:
		return x.Type
	case *ast.CallExpr:
		return typeGiver(x.Fun)
	case *ast.FuncLit:
		return x.Type
	case *ast.SelectorExpr:
		return x
	}
	return nil
}

// typ reports every third-party name in a type that users of the package see.
func (c *signatureCheck) typ(subject string, e ast.Expr) {
	if e == nil {
		return
	}
	ast.Inspect(e, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.StructType:
			c.fields(subject, n.Fields)
			return false
		case *ast.SelectorExpr, *ast.Ident:
			if name := c.thirdParty(n.(ast.Expr)); name != "" {
				c.found = append(c.found, c.tree.finding(n.Pos(), subject,
					"%s is a third-party type; wrap it in one of ours or of the standard library", name))
			}
			return false
		case *ast.Field:
			c.typ(subject, n.Type) // its names are not types
			return false
		}
		return true
	})
}

// fields checks what is exported of a struct, and everything that is embedded:
// it promotes its methods.
func (c *signatureCheck) fields(subject string, list *ast.FieldList) {
	if list == nil {
		return
	}
	for _, f := range list.List {
		exported := len(f.Names) == 0
		for _, name := range f.Names {
			exported = exported || name.IsExported()
		}
		if exported {
			c.typ(subject, f.Type)
		}
	}
}

// mentions returns the first third-party name anywhere in a type.
func (c *signatureCheck) mentions(e ast.Expr) (name string) {
	ast.Inspect(e, func(n ast.Node) bool {
		if x, ok := n.(ast.Expr); ok && name == "" {
			name = c.thirdParty(x)
		}
		return name == ""
	})
	return name
}

// thirdParty returns e as text when it names a third-party type.
func (c *signatureCheck) thirdParty(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		if c.hidden[e.Name] {
			return e.Name
		}
	case *ast.SelectorExpr:
		x, ok := e.X.(*ast.Ident)
		if !ok {
			return ""
		}
		p, known := c.source.imports[x.Name]
		if _, ours := own(p); !known || !ours && !isStd(p) {
			return x.Name + "." + e.Sel.Name
		}
	}
	return ""
}
