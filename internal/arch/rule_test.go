package arch

import (
	"cmp"
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

// rule looks for what breaks one rule. The message of a finding says how to
// mend it.
type rule struct {
	name     string // the key of its exceptions
	check    func(*tree) []finding
	fixtures []fixture
}

// fixture is a small repository and the findings it must give: for each a part
// of its text, in order of file and line. Without any it must be clean.
type fixture struct {
	name  string
	files map[string]string
	want  []string
}

// finding is one breach.
type finding struct {
	path    string
	line    int
	subject string // what an exception names: "dir.Func", "dir.Type.Method", a package or a file
	message string
}

func (f finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.path, f.line, f.subject, f.message)
}

func (t *tree) finding(at token.Pos, subject, format string, args ...any) finding {
	p := t.fset.Position(at)
	return finding{path: p.Filename, line: p.Line, subject: subject, message: fmt.Sprintf(format, args...)}
}

// enclosing returns the subject of every node in a declaration.
func (s *source) enclosing(decl ast.Decl) string {
	fn, ok := decl.(*ast.FuncDecl)
	if !ok {
		return s.name()
	}
	if recv := receiver(fn); recv != "" {
		return s.name() + "." + recv + "." + fn.Name.Name
	}
	return s.name() + "." + fn.Name.Name
}

// receiver is the name of the type that fn is a method of, or empty.
func receiver(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return ""
	}
	e := fn.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.Name
		default:
			return ""
		}
	}
}

var repository = sync.OnceValues(func() (*tree, error) { return load(os.DirFS("../..")) })

// rules are all rules, one file each.
var rules = []rule{
	apache, changelog, exportedDocs, fileLength, forbiddenCalls, fuzzSeeds, goMod, importPicture, initFuncs,
	insecureTLS, oneDoor, packageDocs, panics, readmeExamples, signatures, skips, texts,
}

func TestTheRepositoryKeepsItsRules(t *testing.T) {
	repo, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, f := range excuse(r.check(repo), r.name, exceptions[r.name]) {
				t.Error(f)
			}
		})
	}
}

func TestEveryRuleCatchesWhatBreaksIt(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			fails := func(fx fixture) bool { return len(fx.want) > 0 }
			if !slices.ContainsFunc(r.fixtures, fails) {
				t.Error("no fixture breaks this rule: nothing shows that it can fail")
			}
			for _, fx := range r.fixtures {
				t.Run(fx.name, func(t *testing.T) { r.catches(t, fx) })
			}
		})
	}
}

// catches shows that r finds what is wrong in fx and nothing else.
func (r rule) catches(t *testing.T, fx fixture) {
	t.Helper()
	fsys := fstest.MapFS{}
	for name, text := range fx.files {
		fsys[name] = &fstest.MapFile{Data: []byte(text)}
	}
	tr, err := load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	got := excuse(r.check(tr), r.name, nil)
	for i := range max(len(got), len(fx.want)) {
		switch {
		case i >= len(fx.want):
			t.Errorf("unexpected finding: %s", got[i])
		case i >= len(got):
			t.Errorf("not found: %s", fx.want[i])
		case !strings.Contains(got[i].String(), fx.want[i]):
			t.Errorf("finding %d is %q, want one with %q", i, got[i], fx.want[i])
		}
	}
}

// excuse returns the findings that allowed does not name, and a finding for
// every exception that excuses nothing.
func excuse(found []finding, ruleName string, allowed map[string]string) []finding {
	used := map[string]bool{}
	var left []finding
	for _, f := range found {
		if reason, ok := allowed[f.subject]; ok && reason != "" {
			used[f.subject] = true
			continue
		}
		left = append(left, f)
	}
	for subject, reason := range allowed {
		if !used[subject] {
			left = append(left, finding{
				path: "internal/arch/exceptions_test.go", subject: subject,
				message: fmt.Sprintf("this exception to %q excuses nothing (reason given: %q); remove it", ruleName, reason),
			})
		}
	}
	slices.SortStableFunc(left, func(a, b finding) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.line, b.line), cmp.Compare(a.subject, b.subject))
	})
	return left
}

func TestAnExceptionExcusesItsSubjectOnly(t *testing.T) {
	found := []finding{{path: "a.go", subject: "a.F"}, {path: "b.go", subject: "b.F"}}
	left := excuse(found, "panic", map[string]string{"a.F": "cannot happen"})
	if len(left) != 1 || left[0].subject != "b.F" {
		t.Errorf("left over are %v, want b.F alone", left)
	}
}

func TestAnExceptionWithoutAReasonExcusesNothing(t *testing.T) {
	left := excuse([]finding{{path: "a.go", subject: "a.F"}}, "panic", map[string]string{"a.F": ""})
	if len(left) != 2 {
		t.Errorf("left over are %v, want the finding and the useless exception", left)
	}
}

func TestAStaleExceptionIsAFinding(t *testing.T) {
	left := excuse(nil, "panic", map[string]string{"a.F": "cannot happen"})
	if len(left) != 1 || !strings.Contains(left[0].String(), "remove it") {
		t.Errorf("left over are %v, want the stale exception", left)
	}
}

func TestExceptionsNameARuleThatExists(t *testing.T) {
	for name := range exceptions {
		if !slices.ContainsFunc(rules, func(r rule) bool { return r.name == name }) {
			t.Errorf("exceptions for %q, which is no rule", name)
		}
	}
}
