package mem

import (
	"crypto/x509"
	"maps"
	"slices"
	"strconv"
	"sync"

	"github.com/outgate/outgate/transport"
)

// link is the carrier between two Muxes. Its lock guards the link, both Muxes
// and all their streams. Whatever one side does to the other goes through
// deliver, in order, which is what Freeze holds up.
type link struct {
	mu      sync.Mutex
	config  *config
	ends    [2]*Mux
	frozen  bool
	held    []func()    // sent while frozen
	members []*carriers // sets to leave when both ends have ended
}

// connect returns the two ends of a new link, which joins the given sets.
func connect(cfg *config, d *Dialer, number int, sets ...*carriers) (dialed, accepted *Mux) {
	l := &link{config: cfg, members: sets}
	agent, gateway := addr(d.name()+":"+strconv.Itoa(number)), addr(cfg.name+":443")
	dialed = newMux(l, agent, gateway, tlsState(certificate(cfg.name, x509.ExtKeyUsageServerAuth), cfg.name))
	accepted = newMux(l, gateway, agent, tlsState(d.certificate(), cfg.name))
	dialed.peer, accepted.peer = accepted, dialed
	l.ends = [2]*Mux{dialed, accepted}
	for _, set := range sets {
		set.add(l)
	}
	return dialed, accepted
}

// deliver does to the other side what this side sent. The caller holds l.mu.
func (l *link) deliver(arrive func()) {
	if l.frozen {
		l.held = append(l.held, arrive)
		return
	}
	arrive()
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = nil
	for _, m := range l.ends {
		m.end(&transport.CloseError{Code: transport.ConnectionLost, Remote: true})
	}
}

func (l *link) freeze() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = true
}

func (l *link) thaw() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.frozen = false
	for _, arrive := range l.held {
		arrive()
	}
	l.held = nil
}

// leave takes a link with two dead ends out of its sets. The caller holds l.mu.
func (l *link) leave() {
	if l.ends[0].ended == nil || l.ends[1].ended == nil {
		return
	}
	l.held = nil
	for _, set := range l.members {
		set.remove(l)
	}
	l.members = nil
}

// carriers is the set of live connections of a Listener or a Dialer.
type carriers struct {
	links   map[*link]struct{}
	linksMu sync.Mutex // taken inside link.mu, never around it
}

// Cut breaks the connections that exist now, as [Mux.Cut] does. Later ones are
// not affected.
func (c *carriers) Cut() {
	for _, l := range c.all() {
		l.cut()
	}
}

// Freeze freezes the connections that exist now, as [Mux.Freeze] does. Later
// ones are not affected.
func (c *carriers) Freeze() {
	for _, l := range c.all() {
		l.freeze()
	}
}

// Thaw ends a Freeze of the connections that exist now, as [Mux.Thaw] does.
func (c *carriers) Thaw() {
	for _, l := range c.all() {
		l.thaw()
	}
}

func (c *carriers) all() []*link {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	return slices.Collect(maps.Keys(c.links))
}

func (c *carriers) add(l *link) {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	if c.links == nil {
		c.links = make(map[*link]struct{})
	}
	c.links[l] = struct{}{}
}

func (c *carriers) remove(l *link) {
	c.linksMu.Lock()
	defer c.linksMu.Unlock()
	delete(c.links, l)
}

// signal wakes everyone who waits for a change of what the same lock guards.
type signal struct{ ch chan struct{} }

// wait returns the channel that the next notify closes.
func (s *signal) wait() <-chan struct{} {
	if s.ch == nil {
		s.ch = make(chan struct{})
	}
	return s.ch
}

func (s *signal) notify() {
	if s.ch != nil {
		close(s.ch)
		s.ch = nil
	}
}
