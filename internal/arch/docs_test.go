package arch

import (
	"go/ast"
	"slices"
)

// contractsElsewhere are methods whose contract is that of the interface that
// everyone knows them from.
var contractsElsewhere = []string{
	"Error", "Format", "GoString", "LogValue", "MarshalJSON", "MarshalText", "MarshalYAML", "ServeHTTP", "String",
	"UnmarshalJSON", "UnmarshalText", "UnmarshalYAML", "Unwrap",
}

var exportedDocs = rule{
	name: "every exported name is documented",
	check: func(t *tree) (found []finding) {
		for s := range t.public() {
			for _, decl := range s.file.Decls {
				for _, id := range undocumented(decl) {
					subject := s.name() + "." + id.Name
					if fn, ok := decl.(*ast.FuncDecl); ok {
						subject = s.enclosing(fn)
					}
					found = append(found, t.finding(id.Pos(), subject,
						"exported without a comment; give its contract: units, zero values, who closes, concurrency, errors"))
				}
			}
		}
		return found
	},
	fixtures: []fixture{
		{
			name: "documented",
			files: map[string]string{
				"pki/a.go": `package pki
					// Codes of the registrar.
					const (
						A = iota
						B
					)
					var C = 1 // C is line commented
					// T is a type.
					type T struct{ F int }
					// M is a method.
					func (t *T) M() {}
					func (t *T) Error() string { return "" }
					func (t *T) hidden() {}
					type hidden struct{}
					func (h hidden) Exported() {}`,
				"pki/a_test.go":     "package pki\nfunc TestX() {}",
				"internal/mux/a.go": "package mux\nfunc Open() {}",
			},
		},
		{
			name: "not documented",
			files: map[string]string{"pki/a.go": `package pki
				const A = 1
				var (
					// B is documented.
					B int
					C int
				)
				type T struct{}
				func (t *T) M() {}
				func F() {}
				func Error() {}`},
			want: []string{"a.go:2: pki.A", "a.go:6: pki.C", "a.go:8: pki.T", "a.go:9: pki.T.M", "a.go:10: pki.F", "a.go:11: pki.Error"},
		},
	},
}

func undocumented(decl ast.Decl) (names []*ast.Ident) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		recv := receiver(d)
		if !d.Name.IsExported() || d.Doc != nil || recv != "" && !ast.IsExported(recv) ||
			recv != "" && slices.Contains(contractsElsewhere, d.Name.Name) {
			return nil
		}
		return []*ast.Ident{d.Name}
	case *ast.GenDecl:
		if d.Doc != nil {
			return nil
		}
		for _, spec := range d.Specs {
			switch spec := spec.(type) {
			case *ast.TypeSpec:
				if spec.Name.IsExported() && spec.Doc == nil && spec.Comment == nil {
					names = append(names, spec.Name)
				}
			case *ast.ValueSpec:
				if spec.Doc != nil || spec.Comment != nil {
					continue
				}
				for _, name := range spec.Names {
					if name.IsExported() {
						names = append(names, name)
					}
				}
			}
		}
	}
	return names
}
