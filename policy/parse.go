package policy

import (
	"bytes"
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

	keyEndpoint = "endpoint"
	keyService  = "service"
	keySpecial  = "allow_special"
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

// Parse reads one policy document in YAML or JSON (without JSON's escape \/, which is
// not YAML). The package comment says what its keys mean. A document that is empty, larger than [MaxDocument], has unknown or
// repeated keys, anchors, or an endpoint that is not understood is refused with a
// *[SyntaxError] and changes nothing. Other errors are those of r.
func Parse(r io.Reader) (*Rules, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("policy: read: %w", err)
	}
	if len(text) > MaxDocument {
		return nil, &SyntaxError{Reason: fmt.Sprintf("the document is larger than %d bytes", MaxDocument)}
	}
	root, err := parseDocument(text)
	if err != nil {
		return nil, err
	}
	fields, err := readMapping(root, keyRestrict, keyAllowed, keyDenied)
	if err != nil {
		return nil, err
	}
	open := true
	if n, ok := fields[keyRestrict]; ok {
		restrict, err := readBool(n, keyRestrict)
		if err != nil {
			return nil, err
		}
		open = !restrict
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
	return newRules(open, allow, deny), nil
}

func parseDocument(text []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc, more yaml.Node
	switch err := d.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return nil, &SyntaxError{Reason: "the document is empty; write " + keyRestrict + ": true or false"}
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

func readRules(list *yaml.Node, key string) ([]*rule, error) {
	if list == nil || list.Kind == yaml.ScalarNode && list.ShortTag() == "!!null" {
		return nil, nil
	}
	if list.Kind != yaml.SequenceNode {
		return nil, syntaxError(list, "%s must be a list", key)
	}
	rules := make([]*rule, 0, len(list.Content))
	for _, n := range list.Content {
		r, err := readRule(n, key == keyDenied)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// readRule reads a string, or a mapping of endpoint, service and allow_special.
func readRule(n *yaml.Node, deny bool) (*rule, error) {
	endpoint := n
	r := &rule{line: n.Line}
	switch n.Kind {
	case yaml.ScalarNode:
	case yaml.MappingNode:
		fields, err := readMapping(n, keyEndpoint, keyService, keySpecial)
		if err != nil {
			return nil, err
		}
		endpoint = fields[keyEndpoint]
		if service, ok := fields[keyService]; ok {
			if r.service, err = readService(service); err != nil {
				return nil, err
			}
		}
		if special, ok := fields[keySpecial]; ok {
			if deny {
				return nil, syntaxError(special, "%s belongs to %s", keySpecial, keyAllowed)
			}
			if r.special, err = readBool(special, keySpecial); err != nil {
				return nil, err
			}
		}
	default:
		return nil, syntaxError(n, `an endpoint is a string or a mapping; [v6]:port must be in quotes`)
	}
	if err := r.readEndpoint(n, endpoint, deny); err != nil {
		return nil, err
	}
	if r.special && !r.isAddr() {
		return nil, syntaxError(n, "%s needs an endpoint that is one IP address, with or without a port", keySpecial)
	}
	r.text, r.source = r.display(), r.quoted()
	return r, nil
}

func (r *rule) readEndpoint(at, endpoint *yaml.Node, deny bool) error {
	hostPort := r.service == "" || hasHostPort(r.service)
	if endpoint == nil {
		switch {
		case r.service == "":
			return syntaxError(at, "a rule needs an %s", keyEndpoint)
		case !deny && hostPort:
			return syntaxError(at, "a rule that allows %s needs an %s", r.service, keyEndpoint)
		case !deny && r.service == "unix":
			return syntaxError(at, "a rule that allows unix needs an %s: the path of the socket", keyEndpoint)
		}
		return nil
	}
	s, err := readString(endpoint, "an endpoint")
	if err != nil {
		return err
	}
	var reason string
	switch {
	case hostPort:
		r.pattern, reason = parsePattern(s)
	default:
		_, reason = parseTarget(r.service, s)
		r.pattern = pattern{kind: exactPath, path: s}
	}
	if reason != "" {
		return syntaxError(endpoint, "endpoint %q: %s", shorten(s), reason)
	}
	return nil
}

func readService(n *yaml.Node) (string, error) {
	s, err := readString(n, keyService)
	if err != nil {
		return "", err
	}
	if hasHostPort(s) || s == "unix" {
		return s, nil
	}
	reason := reasonUnknownService
	if strings.Contains(s, "/") {
		reason = checkProductService(s)
	}
	if reason != "" {
		return "", syntaxError(n, "service %q: %s", shorten(s), reason)
	}
	return s, nil
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
