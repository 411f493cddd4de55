package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

// section returns the text of SPEC.md below a heading, up to the next one.
func section(t *testing.T, heading string) string {
	t.Helper()
	spec, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	_, rest, found := strings.Cut(string(spec), "\n"+heading+"\n")
	require.True(t, found, "SPEC.md has no %q", heading)
	text, _, _ := strings.Cut(rest, "\n#")
	return text
}

// table returns the rows of the first table in text, without its head.
func table(text string) (rows [][]string) {
	for line := range strings.Lines(text) {
		cells, isRow := strings.CutPrefix(strings.TrimSpace(line), "|")
		if !isRow {
			if rows != nil {
				break
			}
			continue
		}
		row := strings.Split(strings.TrimSuffix(cells, "|"), "|")
		for i := range row {
			row[i] = strings.TrimSpace(row[i])
		}
		rows = append(rows, row)
	}
	return rows[2:]
}

// codes returns the names of the constants of transport.Code in their order.
func codes(t *testing.T) (names []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "../../transport/code.go", nil, 0)
	require.NoError(t, err)
	for _, decl := range file.Decls {
		if block, ok := decl.(*ast.GenDecl); ok && block.Tok == token.CONST {
			for _, spec := range block.Specs {
				names = append(names, spec.(*ast.ValueSpec).Names[0].Name)
			}
		}
	}
	return names
}

func TestTheSpecificationHasTheCodesOfTheCode(t *testing.T) {
	want := [][]string{}
	for i, name := range codes(t) {
		want = append(want, []string{strconv.Itoa(i), name, transport.Code(i).String()})
	}
	require.NotEmpty(t, want)
	require.Equal(t, want, table(section(t, "## Codes")))
	require.Equal(t, "code "+strconv.Itoa(len(want)), transport.Code(len(want)).String(), "every code has a name")
}

func TestTheSpecificationHasTheLimitsOfTheCode(t *testing.T) {
	want := [][]string{}
	for _, limit := range []struct {
		of    string
		value int64
	}{
		{"control frame, bytes", MaxControl},
		{"header or reply, bytes", MaxHeader},
		{"`type`, `instance`, `software`, `gateway`, `policy`, `digest`, `service`, `request_id`, `traceparent` and each entry of a list, bytes", maxName},
		{"entries of a list", maxEntries},
		{"`address` and `addr`, bytes", MaxAddress},
		{"`subject`, bytes", MaxSubject},
		{"`reason`, bytes", MaxReason},
		{"`hop`", MaxHop},
		{"`within_ms` and `deadline_ms`", maxMillis},
	} {
		want = append(want, []string{limit.of, strconv.FormatInt(limit.value, 10)})
	}
	require.Equal(t, want, table(section(t, "## Limits")))
	require.Equal(t, []int{maxName, maxName, maxName}, []int{MaxService, MaxRequestID, MaxTraceParent}, "they share a row")
}

func TestTheSpecificationHasTheFieldsOfTheCode(t *testing.T) {
	type field struct{ message, name string }
	var want, got []field
	add := func(message string, v any) {
		for f := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			want = append(want, field{message, "`" + name + "`"})
		}
	}
	for f := range reflect.TypeFor[Frame]().Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "type" {
			add("`"+name+"`", reflect.New(f.Type.Elem()).Elem().Interface())
		}
	}
	add("header", Header{})
	add("reply", Reply{})
	for _, row := range table(section(t, "## Messages")) {
		got = append(got, field{row[0], row[1]})
	}
	require.Equal(t, want, got)
}

func TestTheSpecificationIsOfThisVersion(t *testing.T) {
	spec, err := os.ReadFile("SPEC.md")
	require.NoError(t, err)
	lines := strings.Split(string(spec), "\n")
	require.Equal(t, "# The Outgate tunnel protocol, version "+strconv.Itoa(Version), lines[0])
	require.LessOrEqual(t, len(lines), 201, "a specification that is read is short")
	history := strings.Split(strings.TrimSpace(section(t, "## Versions")), "\n")
	require.Len(t, history, Version)
}
