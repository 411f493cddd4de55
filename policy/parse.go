package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxDocument is the size of the largest policy document, in bytes.
const MaxDocument = 1 << 20

const (
	keyRestrict = "enable_access_restrictions"
	keyAllowed  = "allowed_endpoints"
	keyDenied   = "denied_endpoints"
	keyAudit    = "audit_only"
	keyKube     = "kubernetes"
)

// SyntaxError says where and why a policy document is wrong.
type SyntaxError struct {
	Line   int // from 1; near it where the text is not even YAML; 0 when unknown
	Reason string
}

func (e *SyntaxError) Error() string {
	if e.Line == 0 {
		return "policy: " + e.Reason
	}
	return fmt.Sprintf("policy: line %d: %s", e.Line, e.Reason)
}

func syntaxError(n *yaml.Node, format string, args ...any) error {
	return &SyntaxError{Line: n.Line, Reason: fmt.Sprintf(format, args...)}
}

// Parse reads one policy document in YAML or JSON. The package comment says what its
// keys mean. A document that is empty, larger than [MaxDocument], has unknown or
// repeated keys, anchors, or an endpoint that is not understood is refused with a
// *[SyntaxError]. Other errors are those of r.
func Parse(r io.Reader) (*Rules, error) {
	root, err := parseDocument(r, "the document is empty; write "+keyRestrict+": true or false")
	if err != nil {
		return nil, err
	}
	return readDocument(root)
}

func readDocument(root *yaml.Node) (*Rules, error) {
	fields, err := readMapping(root, keyRestrict, keyAllowed, keyDenied, keyAudit, keyKube)
	if err != nil {
		return nil, err
	}
	restrict, err := optionalBool(fields[keyRestrict], keyRestrict)
	if err != nil {
		return nil, err
	}
	audit, err := optionalBool(fields[keyAudit], keyAudit)
	if err != nil {
		return nil, err
	}
	if audit && !restrict {
		return nil, syntaxError(fields[keyAudit], "%s needs %s: true; without restrictions there is nothing to audit", keyAudit, keyRestrict)
	}
	allow, err := readRules(fields[keyAllowed], keyAllowed)
	if err != nil {
		return nil, err
	}
	if _, ok := fields[keyRestrict]; !ok && len(allow) > 0 {
		return nil, syntaxError(fields[keyAllowed], "%s needs %s: true, or false to say that everything else is allowed too", keyAllowed, keyRestrict)
	}
	deny, err := readRules(fields[keyDenied], keyDenied)
	if err != nil {
		return nil, err
	}
	kube, err := readKubernetes(fields[keyKube])
	if err != nil {
		return nil, err
	}
	return newRules(Rules{open: !restrict, audit: audit, kube: kube}, allow, deny), nil
}

// parseDocument reads the one mapping that a file consists of.
func parseDocument(r io.Reader, empty string) (*yaml.Node, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("policy: read: %w", err)
	}
	if len(text) > MaxDocument {
		return nil, &SyntaxError{Reason: fmt.Sprintf("the document is larger than %d bytes", MaxDocument)}
	}
	if json.Valid(text) {
		text = withoutEscapedSlashes(text)
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &SyntaxError{Reason: empty}
	case err != nil:
		return nil, notYAML(err)
	}
	switch err := d.Decode(&more); {
	case err == nil:
		return nil, syntaxError(&more, "a second document; a policy is one")
	case !errors.Is(err, io.EOF):
		return nil, notYAML(err)
	}
	if len(doc.Content) != 1 {
		return nil, &SyntaxError{Reason: "the document is not a mapping"}
	}
	return doc.Content[0], nil
}

// withoutEscapedSlashes spells the one escape of JSON that YAML does not have as what
// it stands for.
func withoutEscapedSlashes(text []byte) []byte {
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' && i+1 < len(text) { // inside a string, since the text is valid
			i++
			if text[i] != '/' {
				out = append(out, '\\')
			}
		}
		out = append(out, text[i])
	}
	return out
}

// notYAML keeps the text of the YAML package alone: its line numbers are in it, and
// its types are not part of this package's contract.
func notYAML(err error) error {
	reason := strings.TrimPrefix(err.Error(), "yaml: ")
	for _, symptom := range []string{"unknown anchor", "alphabetic or numeric character", "node content"} {
		if strings.Contains(reason, symptom) {
			reason += ` (an endpoint that begins with a star or a bracket must be in quotes: "*.example.com:443")`
		}
	}
	e := &SyntaxError{Reason: reason}
	if _, scanErr := fmt.Sscanf(reason, "line %d: ", &e.Line); scanErr == nil {
		_, e.Reason, _ = strings.Cut(reason, ": ")
	}
	return e
}

// readMapping returns the values by key. The map holds the nodes of keys that the
// document has, and only keys that are known.
func readMapping(n *yaml.Node, known ...string) (map[string]*yaml.Node, error) {
	if n.Kind != yaml.MappingNode {
		return nil, syntaxError(n, "expected a mapping with the keys %s", strings.Join(known, ", "))
	}
	fields := make(map[string]*yaml.Node, len(known))
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name, err := readString(key, "a key")
		if err != nil {
			return nil, err
		}
		if !slices.Contains(known, name) {
			return nil, syntaxError(key, "unknown key %q; the keys are %s", shorten(name), strings.Join(known, ", "))
		}
		if earlier, ok := fields[name]; ok {
			return nil, syntaxError(key, "key %q again; it is on line %d already", name, earlier.Line)
		}
		if value.Kind == yaml.AliasNode {
			return nil, syntaxError(value, "a policy has no anchors and aliases")
		}
		fields[name] = value
	}
	return fields, nil
}

func readString(n *yaml.Node, what string) (string, error) {
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!str" {
		return "", syntaxError(n, "%s must be a string; put it in quotes", what)
	}
	return n.Value, nil
}

// optionalBool is false for a key that is missing.
func optionalBool(n *yaml.Node, key string) (bool, error) {
	if n == nil {
		return false, nil
	}
	return readBool(n, key)
}

func readBool(n *yaml.Node, key string) (bool, error) {
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!bool" {
		switch n.Value {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
	}
	return false, syntaxError(n, "%s must be true or false", key)
}

// readStrings reads a list of strings; each is checked by fault, which returns what is
// wrong or "".
func readStrings(n *yaml.Node, key string, fault func(string) string) ([]string, error) {
	if n.Kind != yaml.SequenceNode {
		return nil, syntaxError(n, "%s must be a list", key)
	}
	list := make([]string, 0, len(n.Content))
	for _, entry := range n.Content {
		s, err := readString(entry, "an entry of "+key)
		if err != nil {
			return nil, err
		}
		if reason := fault(s); reason != "" {
			return nil, syntaxError(entry, "%q in %s: %s", shorten(s), key, reason)
		}
		list = append(list, s)
	}
	slices.Sort(list)
	return slices.Compact(list), nil
}
