package websocket

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// gate is a net.Listener that bounds how many of its connections have not shown
// yet whose they are. A source with too many of those waits for its turn, and
// whoever is slow is cut. When all places are taken, a newcomer takes the place of
// one that waits or, as a handshake that goes on for long is rarely an honest one,
// of the oldest; always from the source with the most, so that a flood takes from
// itself.
type gate struct {
	socket net.Listener
	cfg    Config
	log    *slog.Logger

	failed chan error    // errors of the socket, for Accept
	wake   chan struct{} // capacity 1; ready is not empty
	closed chan struct{}
	once   sync.Once
	done   chan struct{} // closed when run has returned

	mu      sync.Mutex
	shut    bool
	total   int // guests, also those that wait
	sources map[netip.Prefix]*source
	ready   []*guest // for Accept
}

// source is a network that guests come from.
type source struct {
	inside  []*guest // in handshake; both have the oldest first
	waiting []*guest // for that
}

// guest is a connection that has not shown whose it is.
type guest struct {
	net.Conn
	gate  *gate
	from  netip.Prefix
	until time.Time
	timer *time.Timer // closes the connection then
	left  bool        // it is no guest any more, or gone; guarded by gate.mu
}

func newGate(socket net.Listener, cfg Config) *gate {
	g := &gate{
		socket:  socket,
		cfg:     cfg,
		log:     quietLog(cfg.Logger, 1),
		failed:  make(chan error),
		wake:    make(chan struct{}, 1),
		closed:  make(chan struct{}),
		done:    make(chan struct{}),
		sources: make(map[netip.Prefix]*source),
	}
	go g.run()
	return g
}

// run takes connections from the socket until that is closed.
func (g *gate) run() {
	defer close(g.done)
	for {
		conn, err := g.socket.Accept()
		if err == nil {
			g.enter(conn)
			continue
		}
		select {
		case g.failed <- err: // the http.Server decides what it means
		case <-g.closed:
			return
		}
	}
}

// enter makes a guest of conn, or closes it.
func (g *gate) enter(conn net.Conn) {
	from := sourceOf(conn.RemoteAddr())
	g.mu.Lock()
	s := g.sources[from]
	if s == nil {
		s = &source{}
	}
	mayStart := len(s.inside) < g.cfg.MaxHandshakesPerSource || !from.IsValid()
	full := g.total >= g.cfg.MaxHandshakes
	if g.shut || full && !mayStart {
		g.mu.Unlock()
		_ = conn.Close()
		g.report(from)
		return
	}
	var victim *guest
	if full {
		victim = g.evict()
	}
	guest := &guest{Conn: conn, gate: g, from: from, until: time.Now().Add(g.cfg.HandshakeTimeout)}
	guest.timer = time.AfterFunc(g.cfg.HandshakeTimeout, func() { _ = guest.Close() })
	g.sources[from] = s
	g.total++
	if mayStart {
		g.start(s, guest)
	} else {
		s.waiting = append(s.waiting, guest)
	}
	g.mu.Unlock()
	if victim != nil {
		_ = victim.Conn.Close()
		g.report(victim.from)
	}
}

// start hands a guest to Accept. g.mu is held.
func (g *gate) start(s *source, guest *guest) {
	s.inside = append(s.inside, guest)
	g.ready = append(g.ready, guest)
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// evict makes room at the source with the most guests. It returns the one to close.
// g.mu is held.
func (g *gate) evict() *guest {
	var most *source
	for _, s := range g.sources {
		if most == nil || len(s.waiting) > len(most.waiting) ||
			len(s.waiting) == len(most.waiting) && len(s.inside) > len(most.inside) {
			most = s
		}
	}
	victim := most.inside[0]
	if n := len(most.waiting); n > 0 {
		victim = most.waiting[n-1]
	}
	g.leave(victim)
	return victim
}

// leave ends the visit of a guest, and lets the next of its source begin. g.mu is
// held.
func (g *gate) leave(gone *guest) {
	if gone.left {
		return
	}
	gone.left = true
	gone.timer.Stop()
	g.total--
	s := g.sources[gone.from]
	is := func(other *guest) bool { return other == gone }
	s.waiting = slices.DeleteFunc(s.waiting, is)
	s.inside = slices.DeleteFunc(s.inside, is)
	for len(s.waiting) > 0 && len(s.inside) < g.cfg.MaxHandshakesPerSource {
		next := s.waiting[0]
		s.waiting = slices.Delete(s.waiting, 0, 1)
		g.start(s, next)
	}
	if len(s.inside)+len(s.waiting) == 0 {
		delete(g.sources, gone.from)
	}
}

// report logs that a connection found no place: one line in ten seconds, however
// many there are.
func (g *gate) report(from netip.Prefix) {
	g.log.Warn("websocket: too many connections in handshake; Config.MaxHandshakes is the limit",
		slog.Int("limit", g.cfg.MaxHandshakes), slog.Int("per_source", g.cfg.MaxHandshakesPerSource), slog.String("from", from.String()))
}

// passed ends the limits for a connection that has shown whose it is.
func (guest *guest) passed() {
	guest.gate.mu.Lock()
	defer guest.gate.mu.Unlock()
	guest.gate.leave(guest)
}

// Close implements net.Conn.
func (guest *guest) Close() error {
	guest.passed()
	return guest.Conn.Close()
}

// NetConn returns what is below.
func (guest *guest) NetConn() net.Conn { return guest.Conn }

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		if guest := g.next(); guest != nil {
			return newCorked(guest), nil
		}
		select {
		case <-g.wake:
		case err := <-g.failed:
			return nil, err
		case <-g.closed:
			return nil, net.ErrClosed
		}
	}
}

// next returns a guest that is still there, or nil.
func (g *gate) next() *guest {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.ready) > 0 {
		guest := g.ready[0]
		g.ready = slices.Delete(g.ready, 0, 1)
		if !guest.left {
			return guest
		}
	}
	return nil
}

// Close implements net.Listener. Guests that Accept has returned stay.
func (g *gate) Close() error {
	err := net.ErrClosed
	g.once.Do(func() {
		err = g.socket.Close()
		close(g.closed)
	})
	<-g.done
	g.mu.Lock()
	g.shut = true
	orphans := g.ready
	for _, s := range g.sources {
		orphans = append(orphans, s.waiting...)
	}
	g.ready = nil
	g.mu.Unlock()
	for _, guest := range slices.Backward(orphans) {
		_ = guest.Close()
	}
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// Addr implements net.Listener.
func (g *gate) Addr() net.Addr { return g.socket.Addr() }

// sourceOf is what counts as one source: an address of IPv4, or the /64 of IPv6
// that one customer has. What is not IP has none.
func sourceOf(a net.Addr) netip.Prefix {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
