package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// index finds a rule that matches a request without looking at each rule. Rules
// with the same key differ in their service, range of ports, subjects or labels, so
// the lists are short.
type index struct {
	names    map[hostPort][]*rule
	suffixes map[hostPort][]*rule
	ports    map[uint16][]*rule // *:port
	prefixes map[prefixPort][]*rule
	bits4    []int // lengths of the prefixes, longest first
	bits6    []int
	byAddr   map[servicePort][]*rule // of prefixes, one for each service, ports, subjects and labels
	paths    map[servicePath][]*rule
	services map[string][]*rule // rules without endpoint
}

// The port of a key is 0 for rules that are for any port or a range.
type (
	hostPort struct {
		host string
		port uint16
	}
	prefixPort struct {
		prefix netip.Prefix
		port   uint16
	}
	servicePort struct {
		service string
		port    uint16
	}
	servicePath struct{ service, path string }
)

func newIndex(rules []*rule) index {
	x := index{
		names:    map[hostPort][]*rule{},
		suffixes: map[hostPort][]*rule{},
		ports:    map[uint16][]*rule{},
		prefixes: map[prefixPort][]*rule{},
		byAddr:   map[servicePort][]*rule{},
		paths:    map[servicePath][]*rule{},
		services: map[string][]*rule{},
	}
	// The narrowest range is found first, and so is the rule that a reader would name.
	narrowFirst := slices.Clone(rules)
	slices.SortStableFunc(narrowFirst, func(a, b *rule) int { return cmp.Compare(a.pattern.ports(), b.pattern.ports()) })
	type conditions struct {
		servicePort
		port, last uint16
		condition  string
	}
	seen := map[conditions]bool{}
	for _, r := range narrowFirst {
		x.add(r)
		k := servicePort{r.service, r.portKey()}
		if c := (conditions{k, r.port, r.last, r.condition}); r.kind == prefixAddr && !seen[c] {
			seen[c] = true
			x.byAddr[k] = append(x.byAddr[k], r)
		}
	}
	x.bits4 = longestFirst(x.bits4)
	x.bits6 = longestFirst(x.bits6)
	return x
}

func (x *index) add(r *rule) {
	switch r.kind {
	case everything:
		x.services[r.service] = append(x.services[r.service], r)
	case exactName:
		k := hostPort{r.host, r.portKey()}
		x.names[k] = append(x.names[k], r)
	case suffixName:
		k := hostPort{r.host, r.portKey()}
		x.suffixes[k] = append(x.suffixes[k], r)
	case anyHost:
		x.ports[r.portKey()] = append(x.ports[r.portKey()], r)
	case exactPath:
		k := servicePath{r.service, r.path}
		x.paths[k] = append(x.paths[k], r)
	case prefixAddr:
		k := prefixPort{r.prefix, r.portKey()}
		x.prefixes[k] = append(x.prefixes[k], r)
		if r.prefix.Addr().Is4() {
			x.bits4 = append(x.bits4, r.prefix.Bits())
		} else {
			x.bits6 = append(x.bits6, r.prefix.Bits())
		}
	}
}

func longestFirst(bits []int) []int {
	slices.Sort(bits)
	bits = slices.Compact(bits)
	slices.Reverse(bits)
	return bits
}

// matchService finds a rule for the whole service or for its path.
func (x *index) matchService(req *Request) *rule {
	if r := covering(x.services[req.Target.Service], req); r != nil {
		return r
	}
	if hasHost(req.Target.Service) || len(x.paths) == 0 {
		return nil
	}
	return covering(x.paths[servicePath{req.Target.Service, req.Target.Path}], req)
}

// matchName finds a rule for the name that was asked for.
func (x *index) matchName(req *Request) *rule {
	if len(x.names) == 0 {
		return nil
	}
	t := &req.Target
	if r := covering(x.names[hostPort{t.Host, t.Port}], req); r != nil {
		return r
	}
	return covering(x.names[hostPort{t.Host, 0}], req)
}

// matchStar finds a rule in which a star stands for the host or its first labels.
// Unless it may cover A-labels, a star covers none: two of them can look alike, so
// each one must be named.
func (x *index) matchStar(req *Request, coverALabels bool) *rule {
	t := &req.Target
	if len(x.suffixes) > 0 && !isLiteral(t.Host) {
		rest := t.Host
		for {
			label, after, ok := strings.Cut(rest, ".")
			if !ok || !coverALabels && isALabel(label) {
				break
			}
			rest = after
			if r := covering(x.suffixes[hostPort{rest, t.Port}], req); r != nil {
				return r
			}
			if r := covering(x.suffixes[hostPort{rest, 0}], req); r != nil {
				return r
			}
		}
	}
	if len(x.ports) == 0 || !coverALabels && hasALabel(t.Host) {
		return nil
	}
	if r := covering(x.ports[t.Port], req); r != nil {
		return r
	}
	return covering(x.ports[0], req)
}

func hasALabel(name string) bool {
	return strings.HasPrefix(name, aLabelPrefix) || strings.Contains(name, "."+aLabelPrefix)
}

// matchAddr finds a rule for an address, the longest prefix first.
func (x *index) matchAddr(req *Request, addr netip.Addr) *rule {
	lengths := x.bits4
	if addr.Is6() {
		lengths = x.bits6
	}
	for _, bits := range lengths {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			return nil
		}
		if r := covering(x.prefixes[prefixPort{prefix, req.Target.Port}], req); r != nil {
			return r
		}
		if r := covering(x.prefixes[prefixPort{prefix, 0}], req); r != nil {
			return r
		}
	}
	return nil
}

// matchSpecial finds the rule that opens one address of the deny floor.
func (x *index) matchSpecial(req *Request, addr netip.Addr) *rule {
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	for _, port := range [...]uint16{req.Target.Port, 0} {
		for _, r := range x.prefixes[prefixPort{prefix, port}] {
			if r.special && r.covers(req) {
				return r
			}
		}
	}
	return nil
}

// mayMatchAddr finds a rule that matches some address of the target's service and
// port.
func (x *index) mayMatchAddr(req *Request) *rule {
	if len(x.byAddr) == 0 {
		return nil
	}
	for _, service := range [...]string{"", req.Target.Service} {
		for _, port := range [...]uint16{req.Target.Port, 0} {
			if r := covering(x.byAddr[servicePort{service, port}], req); r != nil {
				return r
			}
		}
	}
	return nil
}

func covering(rules []*rule, req *Request) *rule {
	for _, r := range rules {
		if r.covers(req) {
			return r
		}
	}
	return nil
}
