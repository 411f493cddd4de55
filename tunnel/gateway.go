package tunnel

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// Gateway admits agents and opens streams through them. The zero value works. The
// exported fields are frozen by the first method call; all methods may be called
// concurrently.
type Gateway struct {
	// ID names this gateway to agents and in logs. Empty means a random one.
	ID string

	// Software is the product's name and version, told to agents. May be empty.
	Software string

	// Identify returns the agent's ID from the state of its connection. nil takes
	// the common name of the verified client certificate and demands that it is a
	// DNS label. A product with several kinds of certificates from one authority
	// must tell them apart here; package pki has AgentName for its own.
	Identify func(tls.ConnectionState) (string, error)

	// Verify may refuse a connection that Identify has named, with code Revoked, or
	// Overloaded for an error whose Temporary method says true. It is asked when
	// the agent connects, and by [Gateway.Reverify] for as long as it is
	// connected. nil refuses nobody. Package pki's Follower has a Check for it.
	Verify func(tls.ConnectionState) error

	// Clones says what becomes of a second process with the identity of one that
	// is connected. The zero value lets it take over.
	Clones ClonePolicy

	// MaxInstances is how many processes AllowClones lets share an identity; 0
	// means 4.
	MaxInstances int

	// Policy is asked before a stream is opened, with the target as asked and no
	// address. nil allows everything here: the agent's policy decides in any case.
	Policy policy.Policy

	// OpenTimeout bounds every open together with the caller's context; 0 means
	// 15 s, more than an agent's default dial timeout.
	OpenTimeout time.Duration

	// HandshakeTimeout bounds the wait for the hello of an authenticated agent; 0
	// means 5 s.
	HandshakeTimeout time.Duration

	// Liveness says when a silent agent counts as gone.
	Liveness Liveness

	// MaxPendingOpens is how many streams of one agent may wait for a handler's
	// answer; more are refused with code Overloaded. 0 means 64.
	MaxPendingOpens int

	// MaxOpensPerSecond is how many streams an agent may open per second on one
	// connection, and at once after a quiet second; more wait for their turn as part of
	// MaxPendingOpens. 0 means 200, a negative value no limit.
	MaxOpensPerSecond int

	// DrainSpread is the time over which Shutdown asks agents to spread their
	// reconnects; 0 means 5 s.
	DrainSpread time.Duration

	Logger *slog.Logger // nil is silent
	Hooks  *Hooks       // may be nil

	once     sync.Once
	id       string
	log      *slog.Logger
	services services
	counters counters

	mu       sync.Mutex
	draining bool
	sessions map[string]*session
	serving  map[*context.CancelFunc]struct{} // running Serve calls
	pending  map[transport.Mux]struct{}       // in the handshake
	changed  chan struct{}                    // closed and replaced when a session starts

	connections sync.WaitGroup // one per connection, handshake included
	handlers    sync.WaitGroup // one per running handler
}

func (g *Gateway) init() {
	g.once.Do(func() {
		g.id = g.ID
		if g.id == "" {
			g.id = newID()
		}
		g.log = g.Logger
		if g.log == nil {
			g.log = slog.New(slog.DiscardHandler)
		}
		g.sessions = make(map[string]*session)
		g.serving = make(map[*context.CancelFunc]struct{})
		g.pending = make(map[transport.Mux]struct{})
		g.changed = make(chan struct{})
	})
}

// Handle serves the streams that agents open to this gateway for service, a name
// such as "example.com/events". It fails for a name that is taken or reserved.
func (g *Gateway) Handle(service string, h Handler) error {
	g.init()
	return g.services.handle(service, h)
}

// Serve admits agents from ln until ctx ends or the gateway shuts down, and closes
// ln then. It may run for several listeners at once. It returns ErrGatewayClosed
// after Shutdown or Close, else the cause of ctx or the listener's error. Sessions
// go on after Serve returned; Shutdown and Close end them.
func (g *Gateway) Serve(ctx context.Context, ln transport.Listener) error {
	g.init()
	defer ln.Close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g.mu.Lock()
	if g.draining {
		g.mu.Unlock()
		return ErrGatewayClosed
	}
	g.serving[&cancel] = struct{}{}
	g.mu.Unlock()
	defer func() {
		g.mu.Lock()
		delete(g.serving, &cancel)
		g.mu.Unlock()
	}()
	for {
		mux, err := ln.Accept(ctx)
		if err != nil {
			if g.isDraining() {
				return ErrGatewayClosed
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return fmt.Errorf("tunnel: accept: %w", err)
		}
		g.mu.Lock()
		if g.draining {
			g.mu.Unlock()
			_ = mux.CloseWithError(transport.Draining, "the gateway is shutting down")
			return ErrGatewayClosed
		}
		g.pending[mux] = struct{}{}
		g.connections.Add(1)
		g.mu.Unlock()
		go func() {
			defer g.connections.Done()
			g.serveConnection(mux)
		}()
	}
}

func (g *Gateway) isDraining() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.draining
}

// serveConnection takes a connection from its handshake to its end.
func (g *Gateway) serveConnection(mux transport.Mux) {
	l, hello, err := g.handshake(mux)
	g.mu.Lock()
	delete(g.pending, mux)
	g.mu.Unlock()
	if err != nil {
		g.refused(mux, err)
		return
	}
	// In the session before the welcome leaves: an agent that says it is connected can be
	// found here.
	s, err := g.attach(l, hello)
	if err != nil {
		l.close(transport.Duplicate, wire.PrintableReason(err.Error()))
		g.refused(mux, err)
		return
	}
	// Reverify knows of the connection from here on, and may have run just before.
	if err := g.verify(mux); err != nil {
		l.close(verdictCode(err), wire.PrintableReason(err.Error()))
	}
	g.welcome(l)
	cause := l.run()
	l.log.Info("connection ended", "error", cause)
	g.detach(s, l, cause)
}

func (g *Gateway) refused(mux transport.Mux, err error) {
	g.counters.refused.Add(1)
	remote := mux.RemoteAddr().String()
	g.log.Warn("refused a connection", "remote", remote, "error", err)
	g.Hooks.connectionRefused(remote, err)
}

// welcome answers the hello. Streams that were asked for meanwhile may then go out.
func (g *Gateway) welcome(l *link) {
	_ = l.writeControl(wire.Frame{Type: wire.TypeWelcome, Welcome: &wire.Welcome{
		Gateway:  g.id,
		Software: g.Software,
		Time:     time.Now().UTC(),
	}}) // a failure has ended the connection
	close(l.welcomed)
}

// handshake identifies the agent and reads its hello. When it fails it has closed mux.
func (g *Gateway) handshake(mux transport.Mux) (*link, *wire.Hello, error) {
	fail := func(code transport.Code, err error) (*link, *wire.Hello, error) {
		_ = mux.CloseWithError(code, wire.PrintableReason(err.Error()))
		return nil, nil, err
	}
	agent, err := g.identify(mux)
	if err != nil {
		return fail(transport.Denied, fmt.Errorf("identify the agent: %w", err))
	}
	if err := g.verify(mux); err != nil {
		return fail(verdictCode(err), fmt.Errorf("verify agent %s: %w", agent, err))
	}
	timeout := g.HandshakeTimeout
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(mux.Context(), timeout)
	defer cancel()
	control, err := mux.AcceptStream(ctx)
	if err != nil {
		return fail(transport.Timeout, fmt.Errorf("no control stream within %s: %w", timeout, err))
	}
	deadline, _ := ctx.Deadline()
	_ = control.SetDeadline(deadline)
	frame, err := wire.ReadFrame(control)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fail(transport.Timeout, fmt.Errorf("no hello within %s: %w", timeout, err))
	}
	if err != nil {
		return fail(transport.Protocol, fmt.Errorf("read hello: %w", err))
	}
	if frame.Type != wire.TypeHello {
		return fail(transport.Protocol, fmt.Errorf("the first frame is %q, not hello", frame.Type))
	}
	_ = control.SetDeadline(time.Time{})
	log := g.log.With("agent", agent, "instance", frame.Hello.Instance, "remote", mux.RemoteAddr().String())
	return newLink(mux, control, log, linkConfig{
		agent:       agent,
		instance:    frame.Hello.Instance,
		atGateway:   true,
		liveness:    g.Liveness.withDefaults(),
		openTimeout: orDefault(g.OpenTimeout, defaultOpenTimeout),
		maxPending:  int64(orDefault(g.MaxPendingOpens, defaultMaxPending)),
		opensPerSec: opensPerSecond(g.MaxOpensPerSecond),
		services:    &g.services,
		authorize:   checkTarget,
		handlers:    &g.handlers,
		counters:    &g.counters,
	}), frame.Hello, nil
}

// identify asks the product's function.
func (g *Gateway) identify(mux transport.Mux) (agent string, err error) {
	defer g.refuseOnPanic(&err)
	if g.Identify == nil {
		return commonName(mux.ConnectionState())
	}
	return g.Identify(mux.ConnectionState())
}

// refuseOnPanic is deferred around the product's functions that see what a
// stranger's certificate holds: a panic of theirs is a refusal.
func (g *Gateway) refuseOnPanic(err *error) {
	if p := recover(); p != nil {
		g.counters.panics.Add(1)
		g.log.Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
		*err = errors.New("internal fault")
	}
}

// checkTarget is all a gateway asks of a stream from an agent: its handlers decide.
func checkTarget(_ context.Context, in *Incoming) (err error) {
	in.parsed, err = policy.ParseTarget(in.Target.Service, in.Target.Address)
	return err
}

// commonName is the default of [Gateway.Identify].
func commonName(cs tls.ConnectionState) (string, error) {
	if len(cs.VerifiedChains) == 0 || len(cs.VerifiedChains[0]) == 0 {
		return "", errors.New("the client certificate is missing or was not verified; set ClientAuth and ClientCAs of the listener")
	}
	name := cs.VerifiedChains[0][0].Subject.CommonName
	if !isLabel(name) {
		return "", fmt.Errorf("the certificate's common name %q is not a DNS label of 1 to 63 characters", name)
	}
	return name, nil
}

// isLabel reports whether s is a DNS-1123 label.
func isLabel(s string) bool {
	if len(s) == 0 || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

// attach adds a connection to its agent's session, or starts one. It fails when
// the policy about clones refuses the connection.
func (g *Gateway) attach(l *link, hello *wire.Hello) (*session, error) {
	agent := l.cfg.agent
	g.mu.Lock()
	s, known := g.sessions[agent]
	if !known {
		s = &session{gateway: g, info: AgentInfo{ID: agent, Since: time.Now()}}
		s.ctx, s.cancel = context.WithCancelCause(context.Background())
	}
	s.mu.Lock()
	replaced, clone, err := g.admit(s, l)
	if err == nil {
		s.links = append(s.links, l)
		s.info.Instance = hello.Instance
		s.info.Software = hello.Software
		s.info.Features = hello.Features
		s.info.Services = hello.Services
		s.info.Policy = hello.Policy
		l.policyChanged = s.setPolicy
		s.info.RemoteAddr = l.mux.RemoteAddr()
	}
	s.mu.Unlock()
	draining := g.draining
	if !known {
		g.sessions[agent] = s
		close(g.changed)
		g.changed = make(chan struct{})
	}
	g.mu.Unlock()
	if clone != nil {
		l.log.Warn("another process has the same identity", "other_instance", clone.Instance, "other_remote", clone.RemoteAddr.String(),
			"returned", clone.Returned, "refused", clone.Refused)
		g.Hooks.cloneSeen(*clone)
	}
	if err != nil {
		return nil, err
	}

	for _, old := range replaced {
		// A carrier says goodbye before it closes, and an old connection is often dead:
		// the new one does not wait for that.
		g.connections.Go(func() { old.close(transport.Duplicate, "replaced by a newer connection") })
	}
	if draining { // Shutdown may have looked before this connection was in the session
		l.close(transport.Draining, "the gateway is shutting down")
	}
	l.log.Info("agent connected", "connections", len(s.snapshot()))
	if !known {
		g.Hooks.sessionStarted(s.Agent())
	}
	return s, nil
}

func (g *Gateway) detach(s *session, l *link, cause *transport.CloseError) {
	g.mu.Lock()
	s.mu.Lock()
	s.links = slices.DeleteFunc(s.links, func(other *link) bool { return other == l })
	last := len(s.links) == 0
	s.mu.Unlock()
	if last {
		delete(g.sessions, s.info.ID)
	}
	g.mu.Unlock()
	if last {
		s.cancel(cause)
		g.Hooks.sessionEnded(s.Agent(), cause)
	}
}

// Session returns the session of a connected agent, or an error that matches
// ErrNotConnected.
func (g *Gateway) Session(agent string) (Session, error) {
	g.init()
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.sessions[agent]; ok {
		return s, nil
	}
	return nil, fmt.Errorf("tunnel: agent %q: %w", agent, ErrNotConnected)
}

// WaitSession returns the session of an agent as soon as it is connected. When ctx
// ends first, the error matches ErrNotConnected and the cause of ctx.
func (g *Gateway) WaitSession(ctx context.Context, agent string) (Session, error) {
	g.init()
	for {
		g.mu.Lock()
		s, ok := g.sessions[agent]
		changed := g.changed
		g.mu.Unlock()
		if ok {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("tunnel: agent %q: %w: %w", agent, ErrNotConnected, context.Cause(ctx))
		}
	}
}

// Sessions returns all sessions, ordered by agent ID.
func (g *Gateway) Sessions() []Session {
	g.init()
	all := g.allSessions()
	slices.SortFunc(all, func(a, b *session) int { return strings.Compare(a.info.ID, b.info.ID) })
	out := make([]Session, len(all))
	for i, s := range all {
		out[i] = s
	}
	return out
}

func (g *Gateway) allSessions() []*session {
	g.mu.Lock()
	defer g.mu.Unlock()
	all := make([]*session, 0, len(g.sessions))
	for _, s := range g.sessions {
		all = append(all, s)
	}
	return all
}

// Dialer returns a function that dials through an agent on behalf of subject. It
// looks the session up on every dial, so connection pools survive reconnects.
func (g *Gateway) Dialer(agent, subject string) DialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		t := Target{Service: network, Address: address, Subject: subject}
		if network == "tcp4" || network == "tcp6" {
			t.Service = "tcp"
		}
		s, err := g.Session(agent)
		if err != nil {
			return nil, notConnected(agent, t)
		}
		stream, err := s.Open(ctx, t)
		if err != nil {
			return nil, err
		}
		return stream, nil
	}
}

// Stats returns the counters of this gateway.
func (g *Gateway) Stats() Stats {
	g.init()
	st := g.counters.snapshot()
	for _, s := range g.allSessions() {
		for _, l := range s.snapshot() {
			st.Connections++
			st.Streams += l.activeStreams()
		}
	}
	return st
}
