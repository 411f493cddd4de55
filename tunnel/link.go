package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

const (
	// headerTimeout bounds the wait for the header of a stream that the peer opened.
	headerTimeout = 5 * time.Second
	// controlWriteTimeout bounds every small write: a peer that does not read that
	// much in that time is as good as dead.
	controlWriteTimeout = 10 * time.Second
	// replyMargin is how much earlier than the opener the acceptor gives up, so that
	// its answer arrives in time.
	replyMargin = 100 * time.Millisecond
	// defaultOpenTimeout is longer than the agent's default dial timeout, so that the
	// agent's answer wins over silence.
	defaultOpenTimeout = 15 * time.Second
	// defaultMaxPending streams may wait for their answer at the same time.
	defaultMaxPending = 64
)

// link is one connection after the handshake, on either side: it serves what the
// peer opens, opens streams to the peer and knows whether the peer is alive.
type link struct {
	mux     transport.Mux
	control transport.Stream
	log     *slog.Logger
	cfg     linkConfig

	controlMu sync.Mutex // one control frame at a time

	announceMu sync.Mutex
	announced  string // digest of the policy that the gateway knows of; on an agent

	policyChanged func(digest string) // on a gateway

	draining  atomic.Bool
	peerDrain atomic.Pointer[wire.Drain]

	mu      sync.Mutex
	active  int           // streams open in either direction
	idle    chan struct{} // closed when active falls to 0; nil unless somebody waits
	kick    chan struct{} // a first stream opened: the keep-alive quickens
	due     time.Time     // when the keep-alive looks next
	heard   time.Time     // when the peer last said anything on the control stream
	heards  uint64        // how often it did; times may be equal
	pingSeq uint64
	pingAt  time.Time
	rtt     time.Duration

	welcomed chan struct{} // closed when streams may be opened

	rung      int    // of the agent's ladder; set at the agent only, as the next
	gatewayID string // from the welcome

	pending atomic.Int64
	opens   rate           // of streams that the peer opens
	floods  flood          // of those that were refused
	tasks   sync.WaitGroup // the link's own goroutines
}

// linkConfig is what the two sides do differently.
type linkConfig struct {
	agent       string // name of the agent, whichever side this is
	instance    string // of the agent's process, at the gateway
	atGateway   bool
	liveness    Liveness
	openTimeout time.Duration
	maxPending  int64
	opensPerSec int
	services    *services
	authorize   func(ctx context.Context, in *Incoming) error
	handlers    *sync.WaitGroup // goroutines that run handlers; outlives the link
	counters    *counters
	enforcement *enforcement // nil at a gateway
}

func newLink(mux transport.Mux, control transport.Stream, log *slog.Logger, cfg linkConfig) *link {
	return &link{
		mux:      mux,
		control:  control,
		log:      log,
		cfg:      cfg,
		kick:     make(chan struct{}, 1),
		welcomed: make(chan struct{}),
		opens:    rate{perSecond: cfg.opensPerSec},
		heard:    time.Now(),
	}
}

// run serves the link until the connection ends and returns why. When it returns,
// only handlers may still be running.
func (l *link) run() *transport.CloseError {
	l.tasks.Go(func() { l.guard(l.readControl) })
	l.tasks.Go(func() { l.guard(l.acceptStreams) })
	l.guard(l.keepAlive)
	l.tasks.Wait()
	return closeCause(l.mux)
}

// guard keeps a fault in the service of this link from reaching any other.
func (l *link) guard(task func()) {
	defer func() {
		if p := recover(); p != nil {
			l.panicked(p)
			l.close(transport.Internal, "internal fault")
		}
	}()
	task()
}

func (l *link) panicked(p any) {
	l.cfg.counters.panics.Add(1)
	l.log.Error("panic", "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
}

// closeCause is why mux ended. Call it after the context of mux ended.
func closeCause(mux transport.Mux) *transport.CloseError {
	if ce, ok := errors.AsType[*transport.CloseError](context.Cause(mux.Context())); ok {
		return ce
	}
	return &transport.CloseError{Code: transport.ConnectionLost, Remote: true}
}

func (l *link) close(code transport.Code, reason string) {
	_ = l.mux.CloseWithError(code, reason)
}

// acceptStreams starts a goroutine for every stream that the peer opens. The
// transport bounds how many there can be.
func (l *link) acceptStreams() {
	for {
		stream, err := l.mux.AcceptStream(l.mux.Context())
		if err != nil {
			// Nothing else ends AcceptStream, but a link that serves nothing must not
			// look alive.
			l.close(transport.Internal, "accept failed")
			return
		}
		l.cfg.handlers.Go(func() { l.serve(stream) })
	}
}

// serve answers one stream of the peer.
func (l *link) serve(stream transport.Stream) {
	l.streamOpened()
	var in *Incoming
	release := sync.OnceFunc(func() {
		l.streamEnded()
		l.cfg.enforcement.forget(in)
	})
	defer func() {
		switch p := recover(); {
		case p != nil:
			l.panicked(p)
			_ = stream.Reset(transport.Internal)
			release()
		case in == nil:
			release()
		case in.wasAccepted(): // whoever accepted it closes it
		default:
			_ = in.Reject(transport.Internal, "the handler gave no answer")
			release()
		}
	}()

	header, err := l.readHeader(stream)
	if err != nil {
		if l.mux.Context().Err() == nil {
			l.floods.warn(l.log, "refused a stream: bad header", "error", err)
		}
		if l.opens.take(time.Now()) > 0 {
			l.sleep(penalty)
		}
		_ = stream.Reset(transport.Protocol)
		return
	}
	in = l.incoming(stream, header, release)
	defer in.settled()
	l.cfg.enforcement.track(in)
	log := l.log.With("request_id", in.Target.RequestID, "target", in.Target.String(), "subject", in.Target.Subject)
	if l.pending.Add(1) > l.cfg.maxPending {
		l.overloaded(in, log)
		return
	}
	if wait := l.opens.take(time.Now()); wait > 0 && !l.sleep(wait) {
		return
	}
	l.dispatch(in, log)
}

// dispatch asks the policy, finds the handler and runs it.
func (l *link) dispatch(in *Incoming, log *slog.Logger) {
	ctx, stop := context.WithDeadline(l.mux.Context(), in.Deadline)
	err := l.cfg.authorize(ctx, in)
	stop()
	if err != nil {
		l.cfg.counters.rejected.Add(1)
		code, reason := refusal(err)
		log.Warn("refused a stream", "code", code.String(), "error", err)
		_ = in.Reject(code, reason)
		return
	}
	if l.draining.Load() {
		l.cfg.counters.rejected.Add(1)
		_ = in.Reject(transport.Draining, "shutting down")
		return
	}
	h := l.cfg.services.lookup(in.Target.Service)
	if h == nil {
		l.cfg.counters.rejected.Add(1)
		log.Warn("refused a stream: unknown service")
		_ = in.Reject(transport.UnknownService, fmt.Sprintf("service %q has no handler here", in.Target.Service))
		return
	}
	l.cfg.counters.accepted.Add(1)
	h.ServeStream(l.mux.Context(), in)
}

// refusal turns an error of a policy or a parser into what the peer may know.
func refusal(err error) (transport.Code, string) {
	if denied, ok := errors.AsType[*policy.Denied](err); ok {
		// The rule stays here: the peer needs to know that, not how.
		return transport.Denied, denied.Reason
	}
	if target, ok := errors.AsType[*policy.TargetError](err); ok {
		return target.Code, target.Reason
	}
	return transport.Denied, "denied by policy"
}

func (l *link) readHeader(stream transport.Stream) (wire.Header, error) {
	if err := stream.SetReadDeadline(time.Now().Add(headerTimeout)); err != nil {
		return wire.Header{}, err
	}
	h, err := wire.ReadHeader(stream)
	if err != nil {
		return wire.Header{}, err
	}
	return h, stream.SetReadDeadline(time.Time{})
}

func (l *link) incoming(stream transport.Stream, h wire.Header, release func()) *Incoming {
	wait := l.cfg.openTimeout
	if d := time.Duration(h.DeadlineMillis) * time.Millisecond; d > 0 && d < wait {
		wait = d
	}
	if wait > 2*replyMargin {
		wait -= replyMargin
	}
	if h.RequestID == "" {
		h.RequestID = newID()
	}
	peer := net.Addr(addr{network: "outgate", address: h.Subject})
	if h.Subject == "" {
		peer = l.mux.RemoteAddr()
	}
	return &Incoming{
		Agent: l.cfg.agent,
		Target: Target{
			Service:     h.Service,
			Address:     h.Address,
			Subject:     h.Subject,
			RequestID:   h.RequestID,
			TraceParent: h.TraceParent,
		},
		Deadline: time.Now().Add(wait),
		stream:   stream,
		peer:     peer,
		release:  release,
		settled:  sync.OnceFunc(func() { l.pending.Add(-1) }),
		answered: make(chan struct{}),
	}
}

func (l *link) streamOpened() {
	l.mu.Lock()
	l.active++
	late := l.active == 1 && time.Until(l.due) > l.cfg.liveness.Busy
	l.mu.Unlock()
	if late {
		select {
		case l.kick <- struct{}{}:
		default:
		}
	}
}

func (l *link) streamEnded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.active--
	if l.active == 0 && l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

func (l *link) activeStreams() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.active
}

// drain asks the peer to go elsewhere, refuses new streams and returns when the
// open ones have ended, the connection has, or ctx has.
func (l *link) drain(ctx context.Context, d wire.Drain) {
	l.draining.Store(true)
	if err := l.writeControl(wire.Frame{Type: wire.TypeDrain, Drain: &d}); err != nil {
		return // the write has ended the connection
	}
	l.awaitIdle(ctx)
}

// retireGrace is how long streams are still accepted on a connection that another one
// has replaced: the peer may not know yet.
const retireGrace = 5 * time.Second

// retire is drain for a connection that another one has replaced, and refuses nothing
// that the peer may still have opened in good faith.
func (l *link) retire(ctx context.Context) {
	if err := l.writeControl(wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{Reason: "the agent has moved to a better transport"}}); err != nil {
		return // the write has ended the connection
	}
	grace := time.NewTimer(retireGrace)
	defer grace.Stop()
	select {
	case <-grace.C:
	case <-ctx.Done():
	case <-l.mux.Context().Done():
	}
	l.draining.Store(true)
	l.awaitIdle(ctx)
}

// awaitIdle returns when no stream is open, the connection has ended, or ctx has.
func (l *link) awaitIdle(ctx context.Context) {
	for {
		l.mu.Lock()
		if l.active == 0 {
			l.mu.Unlock()
			return
		}
		if l.idle == nil {
			l.idle = make(chan struct{})
		}
		idle := l.idle
		l.mu.Unlock()
		select {
		case <-idle:
		case <-ctx.Done():
			return
		case <-l.mux.Context().Done():
			return
		}
	}
}
