package policy

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"
)

// index finds a rule that matches a request without looking at each rule.
type index struct {
	names    map[hostPort]*bucket
	suffixes map[hostPort]*bucket
	ports    map[uint16]*bucket // *:port
	prefixes map[prefixPort]*bucket
	bits4    []int // lengths of the prefixes, longest first
	bits6    []int
	byAddr   map[servicePort]*bucket // of prefixes, one for each service, ports, subjects and labels
	paths    map[servicePath]*bucket
	services map[string]*bucket // rules without endpoint
}

// bucket holds the rules with one key. They differ in their subjects, which it tells
// apart, and in service, range of ports and labels, of which there are few.
type bucket struct {
	everybody []*rule
	subjects  map[string][]*rule
}

func add[K comparable](buckets map[K]*bucket, key K, r *rule) {
	b := buckets[key]
	if b == nil {
		b = &bucket{}
		buckets[key] = b
	}
	if len(r.subjects) == 0 {
		b.everybody = append(b.everybody, r)
		return
	}
	if b.subjects == nil {
		b.subjects = map[string][]*rule{}
	}
	for _, s := range r.subjects {
		b.subjects[s] = append(b.subjects[s], r)
	}
}

// match finds a rule that covers the request; a nil bucket has none.
func (b *bucket) match(req *Request) *rule {
	if b == nil {
		return nil
	}
	if len(b.subjects) > 0 {
		if r := covering(b.subjects[req.Subject], req); r != nil {
			return r
		}
	}
	return covering(b.everybody, req)
}

func covering(rules []*rule, req *Request) *rule {
	for _, r := range rules {
		if r.covers(req) {
			return r
		}
	}
	return nil
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
		names:    map[hostPort]*bucket{},
		suffixes: map[hostPort]*bucket{},
		ports:    map[uint16]*bucket{},
		prefixes: map[prefixPort]*bucket{},
		byAddr:   map[servicePort]*bucket{},
		paths:    map[servicePath]*bucket{},
		services: map[string]*bucket{},
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
			add(x.byAddr, k, r)
		}
	}
	x.bits4 = longestFirst(x.bits4)
	x.bits6 = longestFirst(x.bits6)
	return x
}

func (x *index) add(r *rule) {
	switch r.kind {
	case everything:
		add(x.services, r.service, r)
	case exactName:
		add(x.names, hostPort{r.host, r.portKey()}, r)
	case suffixName:
		add(x.suffixes, hostPort{r.host, r.portKey()}, r)
	case anyHost:
		add(x.ports, r.portKey(), r)
	case exactPath:
		add(x.paths, servicePath{r.service, r.path}, r)
	case prefixAddr:
		add(x.prefixes, prefixPort{r.prefix, r.portKey()}, r)
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
	if r := x.services[req.Target.Service].match(req); r != nil {
		return r
	}
	if hasHost(req.Target.Service) || len(x.paths) == 0 {
		return nil
	}
	return x.paths[servicePath{req.Target.Service, req.Target.Path}].match(req)
}

// matchName finds a rule for the name that was asked for.
func (x *index) matchName(req *Request) *rule {
	if len(x.names) == 0 {
		return nil
	}
	t := &req.Target
	if r := x.names[hostPort{t.Host, t.Port}].match(req); r != nil {
		return r
	}
	return x.names[hostPort{t.Host, 0}].match(req)
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
			if r := x.suffixes[hostPort{rest, t.Port}].match(req); r != nil {
				return r
			}
			if r := x.suffixes[hostPort{rest, 0}].match(req); r != nil {
				return r
			}
		}
	}
	if len(x.ports) == 0 || !coverALabels && hasALabel(t.Host) {
		return nil
	}
	if r := x.ports[t.Port].match(req); r != nil {
		return r
	}
	return x.ports[0].match(req)
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
		if r := x.prefixes[prefixPort{prefix, req.Target.Port}].match(req); r != nil {
			return r
		}
		if r := x.prefixes[prefixPort{prefix, 0}].match(req); r != nil {
			return r
		}
	}
	return nil
}

// matchSpecial finds the rule that opens one address of the deny floor.
func (x *index) matchSpecial(req *Request, addr netip.Addr) *rule {
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	for _, port := range [...]uint16{req.Target.Port, 0} {
		b := x.prefixes[prefixPort{prefix, port}]
		if b == nil {
			continue
		}
		for _, rules := range [...][]*rule{b.subjects[req.Subject], b.everybody} {
			for _, r := range rules {
				if r.special && r.covers(req) {
					return r
				}
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
			if r := x.byAddr[servicePort{service, port}].match(req); r != nil {
				return r
			}
		}
	}
	return nil
}
