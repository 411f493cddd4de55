package policy

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// rule is one entry of allowed_endpoints or denied_endpoints.
type rule struct {
	pattern
	service  string            // the only service it speaks of; "" is every service with a host
	subjects []string          // sorted; none is everybody
	labels   map[string]string // that the agent must have
	special  bool              // allow_special
	line     int

	text      string // what Denied and Decision show
	source    string // what Parse reads back; equal rules have the same
	condition string // the part of source for subjects and labels
}

// covers reports whether the rule speaks of what was asked. Its host or path and its
// subjects are for the index to compare.
func (r *rule) covers(req *Request) bool {
	t := &req.Target
	if r.service != t.Service && (r.service != "" || !hasHost(t.Service)) {
		return false
	}
	if r.port != 0 && (t.Port < r.port || t.Port > max(r.port, r.last)) {
		return false
	}
	for name, value := range r.labels {
		if got, ok := req.Labels[name]; !ok || got != value {
			return false
		}
	}
	return true
}

// bare reports whether the rule is its endpoint and nothing else.
func (r *rule) bare() bool {
	return r.service == "" && !r.special && len(r.subjects) == 0 && len(r.labels) == 0
}

// quoted is the rule's source. Strings of a rule are printable, for which the quotes
// of Go are those of YAML and JSON.
func (r *rule) quoted() string {
	if r.bare() {
		return strconv.Quote(r.pattern.String())
	}
	var fields []string
	if r.kind != everything {
		fields = append(fields, `"endpoint": `+strconv.Quote(r.pattern.String()))
	}
	if r.service != "" {
		fields = append(fields, `"service": `+strconv.Quote(r.service))
	}
	if r.condition != "" {
		fields = append(fields, r.condition)
	}
	if r.special {
		fields = append(fields, `"allow_special": true`)
	}
	return "{" + strings.Join(fields, ", ") + "}"
}

// conditions is the source of subjects and labels.
func (r *rule) conditions() string {
	var fields []string
	if len(r.subjects) > 0 {
		fields = append(fields, `"subjects": [`+joinQuoted(r.subjects)+`]`)
	}
	if len(r.labels) > 0 {
		pairs := make([]string, 0, len(r.labels))
		for _, name := range slices.Sorted(maps.Keys(r.labels)) {
			pairs = append(pairs, strconv.Quote(name)+": "+strconv.Quote(r.labels[name]))
		}
		fields = append(fields, `"labels": {`+strings.Join(pairs, ", ")+`}`)
	}
	return strings.Join(fields, ", ")
}

func joinQuoted(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = strconv.Quote(s)
	}
	return strings.Join(quoted, ", ")
}

func (r *rule) display() string {
	s := r.pattern.String()
	switch {
	case r.kind == everything:
		s = "service " + r.service
	case r.service != "":
		s += " for service " + r.service
	}
	if len(r.subjects) > 0 {
		s += " for subjects " + shorten(strings.Join(r.subjects, ", "))
	}
	if len(r.labels) > 0 {
		pairs := make([]string, 0, len(r.labels))
		for _, name := range slices.Sorted(maps.Keys(r.labels)) {
			pairs = append(pairs, name+"="+r.labels[name])
		}
		s += " for agents with " + shorten(strings.Join(pairs, ", "))
	}
	return s
}
