package policy

import (
	"net/netip"
	"slices"
	"strings"
)

// index finds a rule that matches a request without looking at each rule. Rules
// with the same key differ in their service, so the lists are short.
type index struct {
	names    map[hostPort][]*rule
	suffixes map[hostPort][]*rule
	ports    map[uint16][]*rule // *:port
	prefixes map[prefixPort][]*rule
	bits4    []int // lengths of the prefixes, longest first
	bits6    []int
	byAddr   map[servicePort]*rule // some rule of prefixes with this service and port
	paths    map[servicePath]*rule
	services map[string]*rule // rules without endpoint
}

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
		byAddr:   map[servicePort]*rule{},
		paths:    map[servicePath]*rule{},
		services: map[string]*rule{},
	}
	for _, r := range rules {
		x.add(r)
	}
	x.bits4 = longestFirst(x.bits4)
	x.bits6 = longestFirst(x.bits6)
	return x
}

func (x *index) add(r *rule) {
	switch r.kind {
	case everything:
		x.services[r.service] = r
	case exactName:
		k := hostPort{r.host, r.port}
		x.names[k] = append(x.names[k], r)
	case suffixName:
		k := hostPort{r.host, r.port}
		x.suffixes[k] = append(x.suffixes[k], r)
	case anyHost:
		x.ports[r.port] = append(x.ports[r.port], r)
	case exactPath:
		x.paths[servicePath{r.service, r.path}] = r
	case prefixAddr:
		k := prefixPort{r.prefix, r.port}
		x.prefixes[k] = append(x.prefixes[k], r)
		x.byAddr[servicePort{r.service, r.port}] = r
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
func (x *index) matchService(t Target) *rule {
	if r := x.services[t.Service]; r != nil {
		return r
	}
	if hasHostPort(t.Service) {
		return nil
	}
	return x.paths[servicePath{t.Service, t.Path}]
}

// matchName finds a rule for the name that was asked for.
func (x *index) matchName(t Target) *rule {
	if len(x.names) == 0 {
		return nil
	}
	if r := covering(x.names[hostPort{t.Host, t.Port}], t.Service); r != nil {
		return r
	}
	return covering(x.names[hostPort{t.Host, 0}], t.Service)
}

// matchStar finds a rule in which a star stands for the host or its first labels.
// Unless it may cover A-labels, a star covers none: two of them can look alike, so
// each one must be named.
func (x *index) matchStar(t Target, coverALabels bool) *rule {
	if len(x.suffixes) > 0 && !isLiteral(t.Host) {
		rest := t.Host
		for {
			label, after, ok := strings.Cut(rest, ".")
			if !ok || !coverALabels && isALabel(label) {
				break
			}
			rest = after
			if r := covering(x.suffixes[hostPort{rest, t.Port}], t.Service); r != nil {
				return r
			}
			if r := covering(x.suffixes[hostPort{rest, 0}], t.Service); r != nil {
				return r
			}
		}
	}
	if len(x.ports) == 0 || !coverALabels && hasALabel(t.Host) {
		return nil
	}
	return covering(x.ports[t.Port], t.Service)
}

func hasALabel(name string) bool {
	return strings.HasPrefix(name, aLabelPrefix) || strings.Contains(name, "."+aLabelPrefix)
}

// matchAddr finds a rule for an address, the longest prefix first.
func (x *index) matchAddr(t Target, addr netip.Addr) *rule {
	lengths := x.bits4
	if addr.Is6() {
		lengths = x.bits6
	}
	for _, bits := range lengths {
		prefix, err := addr.Prefix(bits)
		if err != nil {
			return nil
		}
		if r := covering(x.prefixes[prefixPort{prefix, t.Port}], t.Service); r != nil {
			return r
		}
		if r := covering(x.prefixes[prefixPort{prefix, 0}], t.Service); r != nil {
			return r
		}
	}
	return nil
}

// matchSpecial finds the rule that opens one address of the deny floor.
func (x *index) matchSpecial(t Target, addr netip.Addr) *rule {
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	for _, port := range [...]uint16{t.Port, 0} {
		for _, r := range x.prefixes[prefixPort{prefix, port}] {
			if r.special && r.covers(t.Service) {
				return r
			}
		}
	}
	return nil
}

// mayMatchAddr finds a rule that matches some address of the target's service and
// port.
func (x *index) mayMatchAddr(t Target) *rule {
	if len(x.byAddr) == 0 {
		return nil
	}
	for _, service := range [...]string{"", t.Service} {
		for _, port := range [...]uint16{t.Port, 0} {
			if r := x.byAddr[servicePort{service, port}]; r != nil {
				return r
			}
		}
	}
	return nil
}

func covering(rules []*rule, service string) *rule {
	for _, r := range rules {
		if r.covers(service) {
			return r
		}
	}
	return nil
}
