package policy

import "strconv"

// Decision is what [Rules.Explain] found. Its JSON is stable: names of fields are only
// added.
type Decision struct {
	Allowed bool `json:"allowed"`
	// Pending says that the target is a name whose address was not in the request:
	// Allowed then means that the name may be resolved, and each address needs a
	// decision of its own.
	Pending bool `json:"pending,omitempty"`
	// WouldDeny says that it is allowed because of audit_only alone.
	WouldDeny bool   `json:"would_deny,omitempty"`
	Rule      string `json:"rule,omitempty"` // the rule that decided; empty when none did
	Line      int    `json:"line,omitempty"` // of that rule in its document; 0 when none decided
	Reason    string `json:"reason"`
}

// String is one line such as "denied by rule 10.0.0.0/8 on line 7: ...".
func (d Decision) String() string {
	s := "denied"
	switch {
	case d.Allowed && d.Pending:
		s = "may be resolved"
	case d.Allowed:
		s = "allowed"
	}
	if d.Rule != "" {
		s += " by rule " + d.Rule + " on line " + strconv.Itoa(d.Line)
	}
	return s + ": " + d.Reason
}
