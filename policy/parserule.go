package policy

import (
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

const (
	keyEndpoint = "endpoint"
	keyService  = "service"
	keySubjects = "subjects"
	keyLabels   = "labels"
	keySpecial  = "allow_special"
)

// maxText bounds a subject and the parts of a label, in bytes; no stream carries a
// longer subject.
const maxText = 256

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

// readRule reads a string, or a mapping of endpoint and what narrows it.
func readRule(n *yaml.Node, deny bool) (*rule, error) {
	endpoint := n
	r := &rule{line: n.Line}
	switch n.Kind {
	case yaml.ScalarNode:
	case yaml.MappingNode:
		fields, err := readMapping(n, keyEndpoint, keyService, keySubjects, keyLabels, keySpecial)
		if err != nil {
			return nil, err
		}
		endpoint = fields[keyEndpoint]
		if err := r.readFields(fields, deny); err != nil {
			return nil, err
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
	r.condition = r.conditions()
	r.text, r.source = r.display(), r.quoted()
	return r, nil
}

// readFields reads what a rule says beside its endpoint.
func (r *rule) readFields(fields map[string]*yaml.Node, deny bool) (err error) {
	if n, ok := fields[keyService]; ok {
		if r.service, err = readService(n); err != nil {
			return err
		}
	}
	if n, ok := fields[keySubjects]; ok {
		if r.subjects, err = readStrings(n, keySubjects, textFault); err != nil {
			return err
		}
		if len(r.subjects) == 0 {
			return syntaxError(n, "%s is empty: name somebody, or leave it out to mean everybody", keySubjects)
		}
	}
	if n, ok := fields[keyLabels]; ok {
		if r.labels, err = readLabels(n); err != nil {
			return err
		}
	}
	if n, ok := fields[keySpecial]; ok {
		if deny {
			return syntaxError(n, "%s belongs to %s", keySpecial, keyAllowed)
		}
		r.special, err = readBool(n, keySpecial)
	}
	return err
}

func readLabels(n *yaml.Node) (map[string]string, error) {
	if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
		return nil, syntaxError(n, "%s must be a mapping of at least one name to its value", keyLabels)
	}
	labels := make(map[string]string, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		name, err := readString(n.Content[i], "the name of a label")
		if err != nil {
			return nil, err
		}
		value, err := readString(n.Content[i+1], "the value of label "+shorten(name))
		if err != nil {
			return nil, err
		}
		for _, s := range []string{name, value} {
			if reason := textFault(s); reason != "" {
				return nil, syntaxError(n.Content[i], "label %q: %s", shorten(name), reason)
			}
		}
		if _, again := labels[name]; again {
			return nil, syntaxError(n.Content[i], "label %q again", shorten(name))
		}
		labels[name] = value
	}
	return labels, nil
}

// textFault says what is wrong with a subject or a label.
func textFault(s string) string {
	switch {
	case s == "":
		return "it is empty"
	case len(s) > maxText:
		return "it is longer than 256 bytes"
	case strings.ContainsFunc(s, func(c rune) bool { return !unicode.IsPrint(c) }):
		return "it has a character that is not printable"
	}
	return ""
}

func (r *rule) readEndpoint(at, endpoint *yaml.Node, deny bool) error {
	host := r.service == "" || hasHost(r.service)
	if endpoint == nil {
		switch {
		case r.service == "":
			return syntaxError(at, "a rule needs an %s", keyEndpoint)
		case !deny && host:
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
	case host:
		r.pattern, reason = parsePattern(s)
		if reason == "" && r.service == "icmp" && r.port != 0 {
			reason = "icmp has no ports"
		}
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
	if hasHost(s) || s == "unix" {
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
