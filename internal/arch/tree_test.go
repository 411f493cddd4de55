package arch

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"iter"
	"path"
	"strconv"
	"strings"
)

const modulePath = "github.com/outgate/outgate"

// tree is a parsed repository, or a fixture that plays one.
type tree struct {
	fs      fs.FS
	fset    *token.FileSet
	sources []*source
	nested  []string // directories of modules below the root
}

// source is one Go file. Build constraints do not matter: a rule holds on every
// platform.
type source struct {
	path    string
	dir     string // of the file; "." for the root
	module  string // directory of its module; "." for the root
	test    bool
	text    []byte
	file    *ast.File
	imports map[string]string // the name in this file -> import path
}

// load parses every Go file below fsys. Directories that the go tool ignores
// hold no packages and are left out, and so is what .gitignore names.
func load(fsys fs.FS) (*tree, error) {
	t := &tree{fs: fsys, fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && ignoredDir(name):
			return fs.SkipDir
		case d.IsDir():
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil && name != "." {
				t.nested = append(t.nested, name)
			}
			return nil
		case path.Ext(name) != ".go":
			return nil
		}
		s, err := t.parse(name)
		if err != nil {
			return err
		}
		t.sources = append(t.sources, s)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("arch: load the tree: %w", err)
	}
	for _, s := range t.sources {
		s.module = t.moduleOf(s.dir)
	}
	return t, nil
}

func ignoredDir(name string) bool {
	base := path.Base(name)
	return name != "." && (name == "bin" || base == "testdata" || base == "vendor" || base == "node_modules" ||
		strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_"))
}

func (t *tree) parse(name string) (*source, error) {
	text, err := fs.ReadFile(t.fs, name)
	if err != nil {
		return nil, err
	}
	file, err := parser.ParseFile(t.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	s := &source{
		path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"),
		text: text, file: file, imports: map[string]string{},
	}
	for _, spec := range file.Imports {
		s.imports[importName(spec)] = importPath(spec)
	}
	return s, nil
}

func (t *tree) moduleOf(dir string) string {
	module := "."
	for _, n := range t.nested {
		if within(dir, n) && len(n) > len(module) {
			module = n
		}
	}
	return module
}

func within(dir, parent string) bool {
	return dir == parent || strings.HasPrefix(dir, parent+"/")
}

// library are the files of the root module: what users of the library compile.
func (t *tree) library() iter.Seq[*source] {
	return t.where(func(s *source) bool { return s.module == "." && !s.test })
}

// public are the files of the packages that users of the library can import.
func (t *tree) public() iter.Seq[*source] {
	return t.where(func(s *source) bool { return s.module == "." && !s.test && !within(s.dir, "internal") })
}

func (t *tree) where(keep func(*source) bool) iter.Seq[*source] {
	return func(yield func(*source) bool) {
		for _, s := range t.sources {
			if keep(s) && !yield(s) {
				return
			}
		}
	}
}

// name is what the file's directory is called in tables and messages.
func (s *source) name() string {
	if s.dir == "." {
		return path.Base(modulePath)
	}
	return s.dir
}

func (s *source) lines() int {
	n := bytes.Count(s.text, []byte("\n"))
	if len(s.text) > 0 && s.text[len(s.text)-1] != '\n' {
		n++
	}
	return n
}

// selector returns "import/path.Name" when e is a name of an imported package.
func (s *source) selector(e ast.Expr) (string, bool) {
	sel, ok := e.(*ast.SelectorExpr)
	if !ok {
		return "", false
	}
	x, ok := sel.X.(*ast.Ident)
	if !ok {
		return "", false
	}
	p, ok := s.imports[x.Name]
	return p + "." + sel.Sel.Name, ok
}

func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value // cannot be: the parser accepted it
	}
	return p
}

// importName is the name that a file knows an import by. Without an alias it is
// guessed from the path, as people do: the last element that is no version.
func importName(spec *ast.ImportSpec) string {
	if spec.Name != nil {
		return spec.Name.Name
	}
	p := importPath(spec)
	base := path.Base(p)
	if v, ok := strings.CutPrefix(base, "v"); ok && strings.Trim(v, "0123456789") == "" {
		base = path.Base(path.Dir(p))
	}
	return strings.TrimSuffix(strings.TrimPrefix(base, "go-"), "-go")
}

func isStd(importPath string) bool {
	first, _, _ := strings.Cut(importPath, "/")
	return !strings.Contains(first, ".")
}

// own returns the directory of one of our packages.
func own(importPath string) (dir string, ok bool) {
	if importPath == modulePath {
		return ".", true
	}
	return strings.CutPrefix(importPath, modulePath+"/")
}
