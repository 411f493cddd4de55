package policy

import (
	"fmt"
	"io"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

const (
	keyCases    = "cases"
	keyTarget   = "target"
	keySubject  = "subject"
	keyResolves = "resolves"
	keyWant     = "want"
	keyRule     = "rule"

	wantAllow = "allow"
	wantDeny  = "deny"
)

// Case is what somebody expects of a policy.
type Case struct {
	Service  string            `json:"service"`
	Target   string            `json:"target"` // need not parse: such a target is denied
	Subject  string            `json:"subject,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Resolves []netip.Addr      `json:"resolves,omitempty"` // of a name; without any the question is whether it may be resolved
	Allow    bool              `json:"allow"`
	Rule     string            `json:"rule,omitempty"` // that must decide, as a Decision names it; empty is any or none
	Line     int               `json:"line,omitempty"` // in its file
}

// CaseResult is a [Case] and what the policy said.
type CaseResult struct {
	Case
	Passed bool     `json:"passed"`
	Got    Decision `json:"got"` // the first that denied, else the last
}

// String is one line, such as "line 3: tcp:db:5432: want allow, got denied: no rule allows it".
func (r CaseResult) String() string {
	want := wantDeny
	if r.Allow {
		want = wantAllow
	}
	if r.Rule != "" {
		want += " by rule " + r.Rule
	}
	s := fmt.Sprintf("line %d: %s:%s: ", r.Line, r.Service, r.Target)
	if r.Passed {
		return s + r.Got.String()
	}
	return s + "want " + want + ", got " + r.Got.String()
}

// ParseCases reads expectations in YAML or JSON:
//
//	cases:
//	  - {target: "db.internal:5432", want: allow}
//	  - {target: "db.internal:5432", resolves: [10.0.0.5, 127.0.0.1], want: deny}
//	  - {target: /run/db.sock, service: unix, subject: alice, want: deny, rule: ""}
//
// The service is tcp unless written; labels and rule may be written too. A file that is
// not understood is refused as [Parse] does.
func ParseCases(r io.Reader) ([]Case, error) {
	root, err := parseDocument(r, "the file is empty; write "+keyCases)
	if err != nil {
		return nil, err
	}
	fields, err := readMapping(root, keyCases)
	if err != nil {
		return nil, err
	}
	list := fields[keyCases]
	if list == nil || list.Kind != yaml.SequenceNode {
		return nil, syntaxError(root, "%s must be a list", keyCases)
	}
	cases := make([]Case, 0, len(list.Content))
	for _, n := range list.Content {
		c, err := readCase(n)
		if err != nil {
			return nil, err
		}
		cases = append(cases, c)
	}
	return cases, nil
}

func readCase(n *yaml.Node) (Case, error) {
	c := Case{Line: n.Line, Service: "tcp"}
	fields, err := readMapping(n, keyTarget, keyService, keySubject, keyLabels, keyResolves, keyWant, keyRule)
	if err != nil {
		return c, err
	}
	want := ""
	for key, field := range map[string]*string{keyTarget: &c.Target, keyService: &c.Service, keySubject: &c.Subject, keyWant: &want, keyRule: &c.Rule} {
		if value, ok := fields[key]; ok {
			if *field, err = readString(value, key); err != nil {
				return c, err
			}
		}
	}
	if _, ok := fields[keyTarget]; !ok {
		return c, syntaxError(n, "a case needs a %s", keyTarget)
	}
	switch want {
	case wantAllow, wantDeny:
		c.Allow = want == wantAllow
	default:
		return c, syntaxError(n, "%s must be %s or %s", keyWant, wantAllow, wantDeny)
	}
	if labels, ok := fields[keyLabels]; ok {
		if c.Labels, err = readLabels(labels); err != nil {
			return c, err
		}
	}
	if list, ok := fields[keyResolves]; ok {
		c.Resolves, err = readAddrs(list)
	}
	return c, err
}

func readAddrs(n *yaml.Node) ([]netip.Addr, error) {
	texts, err := readStrings(n, keyResolves, func(s string) string {
		if _, err := netip.ParseAddr(s); err != nil {
			return "it is not an IP address"
		}
		return ""
	})
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(texts))
	for _, s := range texts {
		addr, err := netip.ParseAddr(s)
		if err != nil {
			return nil, syntaxError(n, "%q is not an IP address", s)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// RunCases asks p about each case, resolving nothing. What passes because of audit_only
// alone counts as denied, so that a list can be tested before it is in force.
func RunCases(p Explainer, cases []Case) []CaseResult {
	results := make([]CaseResult, len(cases))
	for i, c := range cases {
		got := c.ask(p)
		allowed := got.Allowed && !got.WouldDeny
		results[i] = CaseResult{Case: c, Got: got, Passed: allowed == c.Allow && (c.Rule == "" || c.Rule == got.Rule)}
	}
	return results
}

func (c Case) ask(p Explainer) Decision {
	t, reason := parseTarget(c.Service, c.Target)
	if reason != "" {
		return Decision{Reason: reason}
	}
	r := Request{Subject: c.Subject, Target: t, Labels: c.Labels}
	got := p.Explain(r)
	for _, r.Addr = range c.Resolves {
		if !got.Allowed {
			break
		}
		// What is said of the name is not final, except that an audit was needed.
		audited := got.WouldDeny
		got = p.Explain(r)
		got.WouldDeny = got.WouldDeny || audited && got.Allowed
	}
	return got
}
