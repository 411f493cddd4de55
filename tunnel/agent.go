package tunnel

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// Agent dials out to a gateway and serves the streams that its policy allows. The
// exported fields are frozen by the first method call; all methods may be called
// concurrently.
type Agent struct {
	// Gateways are base URLs, such as "https://gateway.example.com". The agent
	// holds one connection and tries the next URL when one fails. At least one is
	// required.
	Gateways []string

	// Dialers are the transports, the preferred one first: usually WebSocket, which
	// passes everywhere, then QUIC; any order will do. At least one is required.
	// Identity and trust are in their TLS configurations.
	//
	// One works when the gateway has sent its welcome over it. The agent begins with
	// what worked last at that gateway and tries the others when it fails, unless the
	// gateway itself has refused: with one of the codes Denied, Revoked, Overloaded,
	// Draining, Duplicate or Internal, in an error without a method OnTheWay() bool
	// that returns true. While a less preferred one works, the agent tries
	// the better ones from time to time, and moves to one that works: the old
	// connection serves its streams to their end.
	Dialers []transport.Dialer

	// Policy decides about every stream, by name before it is resolved and by
	// address before it is dialled. nil denies everything. When a [policy.Changer]
	// changes, the streams that it does not allow any more are reset with code Denied.
	Policy policy.Policy

	// OwnListeners are the addresses at which this process listens, as
	// net.Listener.Addr returns them. They are on the policy's deny floor, as the
	// gateways' addresses are. An unspecified IP stands for all of this machine's.
	OwnListeners []net.Addr

	// Name and Labels describe this agent to its own policy, and to handlers and logs.
	// The gateway takes the name from the certificate.
	Name   string
	Labels map[string]string

	// Software is the product's name and version, told to gateways. May be empty.
	Software string

	// Resolver looks up the names of targets; nil means net.DefaultResolver.
	Resolver policy.Resolver

	// DialTimeout bounds the dial of one target, lookup included; 0 means 10 s.
	DialTimeout time.Duration

	// OpenTimeout bounds Open together with the caller's context; 0 means 15 s.
	OpenTimeout time.Duration

	// HandshakeTimeout bounds the connection to a gateway up to its welcome; 0 means
	// 10 s.
	HandshakeTimeout time.Duration

	// Liveness says when a silent gateway counts as gone.
	Liveness Liveness

	// BackoffMin and BackoffMax bound the random delay between connections, 0 means
	// 500 ms and 30 s. The delay falls back to the minimum after a connection that
	// lived for StableAfter, 0 means 60 s.
	BackoffMin, BackoffMax, StableAfter time.Duration

	// ClimbMin and ClimbMax bound the time between two attempts to get back to a
	// better transport; it doubles from one to the other, with jitter, and falls back
	// when the best one has lived for StableAfter. 0 means 1 min and 1 h.
	ClimbMin, ClimbMax time.Duration

	// MaxPendingOpens is how many streams may wait for their turn, a handler's answer
	// or a dial; more are refused with code Overloaded. 0 means 64.
	MaxPendingOpens int

	// MaxOpensPerSecond is how many streams a gateway may open per second on one
	// connection, and at once after a quiet second; more wait for their turn. A
	// gateway that is a busy product needs more than the default. 0 means 200, a
	// negative value no limit.
	MaxOpensPerSecond int

	Logger *slog.Logger // nil is silent

	once     sync.Once
	instance string
	log      *slog.Logger
	services services
	counters counters
	handlers sync.WaitGroup
	stop     context.CancelFunc // ends Run for Shutdown
	stopped  context.Context

	dialer      *policy.Dialer // the one door to the agent's network
	enforcement enforcement

	serving sync.WaitGroup // one per connection, also those that another has replaced

	mu      sync.Mutex
	running chan struct{}      // closed when Run returns; nil while it does not run
	closing bool               // Shutdown was called
	link    *link              // nil while there is no connection
	ladders map[string]*ladder // by the URL of the gateway
	status  Status
	changed chan struct{} // closed and replaced when status.State changes
}

// State is what an agent is doing.
type State string

// The states of an agent.
const (
	StateIdle       State = "idle"       // Run was not called, or has returned
	StateConnecting State = "connecting" // dialling, or in the handshake
	StateConnected  State = "connected"
	StateWaiting    State = "waiting" // for the next attempt
)

// Status is a snapshot of an agent.
type Status struct {
	State     State
	Since     time.Time     // when State began
	Gateway   string        // the URL that is or was last used
	Rungs     []Rung        // how the transports do there, in the order of Dialers
	GatewayID string        // from its welcome; empty unless connected
	RTT       time.Duration // of the last ping; 0 if none was answered on this connection
	Attempts  int           // failed attempts since the last connection
	LastError error         // of the last attempt or connection; nil if there was none
	Draining  bool          // the gateway has asked to go elsewhere
}

func (a *Agent) init() {
	a.once.Do(func() {
		a.instance = newID()
		a.log = a.Logger
		if a.log == nil {
			a.log = slog.New(slog.DiscardHandler)
		}
		if a.Name != "" {
			a.log = a.log.With("agent", a.Name)
		}
		a.stopped, a.stop = context.WithCancel(context.Background())
		a.status = Status{State: StateIdle, Since: time.Now()}
		a.changed = make(chan struct{})
		a.dialer = a.newDialer()
		dial := &targetDialer{agent: a}
		a.services.m = map[string]Handler{"tcp": dial, "unix": dial, "http": dial}
	})
}

// Handle serves the streams of service with h instead of dialling: "http" with a
// server in this process, say, or a product's own "example.com/x". The policy is
// asked all the same. It fails for a name that is taken or reserved.
func (a *Agent) Handle(service string, h Handler) error {
	a.init()
	a.services.mu.Lock()
	if _, ok := a.services.m[service].(*targetDialer); ok {
		delete(a.services.m, service)
	}
	a.services.mu.Unlock()
	return a.services.handle(service, h)
}

// Run connects and reconnects until ctx ends, and returns the cause of ctx; or
// ErrAgentClosed after Shutdown; or earlier, for an error that trying again cannot
// mend: a bad configuration, a revoked identity, or an error of the Dialer that has a
// method Permanent() bool which returns true. It cuts what is open and waits for all
// handlers before it returns. Run may be called once at a time.
func (a *Agent) Run(ctx context.Context) error {
	a.init()
	if len(a.Gateways) == 0 {
		return errors.New("tunnel: agent: no gateway; set Gateways to a base URL such as https://gateway.example.com")
	}
	if len(a.Dialers) == 0 || slices.Contains(a.Dialers, nil) {
		return errors.New("tunnel: agent: no dialer, or one that is nil; set Dialers to those of transport/websocket and transport/quic")
	}
	a.mu.Lock()
	if a.running != nil {
		a.mu.Unlock()
		return errors.New("tunnel: agent: Run is already running")
	}
	a.running = make(chan struct{})
	a.mu.Unlock()
	defer func() {
		a.serving.Wait()
		a.handlers.Wait()
		a.setState(StateIdle, nil)
		a.mu.Lock()
		close(a.running)
		a.running = nil
		a.mu.Unlock()
	}()

	defer a.followPolicy()()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(a.stopped, func() { cancel(ErrAgentClosed) })()
	pace := backoff{
		low:    orDefault(a.BackoffMin, 500*time.Millisecond),
		high:   orDefault(a.BackoffMax, 30*time.Second),
		stable: orDefault(a.StableAfter, defaultStableAfter),
	}
	for attempt := 0; ; attempt++ {
		gateway := a.Gateways[attempt%len(a.Gateways)]
		began := time.Now()
		err := a.connect(ctx, gateway)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if permanent(err) {
			a.log.Error("giving up: this needs a person", "gateway", gateway, "error", err)
			return fmt.Errorf("tunnel: agent: %s: %w", gateway, err)
		}
		delay := a.delay(&pace, time.Since(began), err)
		a.setState(StateWaiting, err)
		a.log.Warn("not connected", "gateway", gateway, "error", err, "retry_in", delay.Round(time.Millisecond))
		timer := time.NewTimer(delay)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return context.Cause(ctx)
		}
	}
}

// delay paces the next attempt: as a draining gateway or a busy server asked, else by
// backoff.
func (a *Agent) delay(pace *backoff, lived time.Duration, err error) time.Duration {
	var drain *drainedError
	if errors.As(err, &drain) && drain.within > 0 {
		pace.bound = 0
		return jitter(min(drain.within, pace.high))
	}
	d := pace.next(lived)
	var busy interface{ RetryDelay() time.Duration }
	if errors.As(err, &busy) {
		// Jitter on top of what the server asked, so that not everybody is on time.
		d += min(busy.RetryDelay(), 10*time.Minute)
	}
	return d
}

// permanent reports whether trying again cannot help.
func permanent(err error) bool {
	if errors.Is(err, transport.Revoked) {
		return true
	}
	var p interface{ Permanent() bool }
	return errors.As(err, &p) && p.Permanent()
}

// drainedError is the end of a connection whose gateway said when to come back.
type drainedError struct {
	err    error
	within time.Duration
}

func (e *drainedError) Error() string { return e.err.Error() }
func (e *drainedError) Unwrap() error { return e.err }

// authorize asks the policy about a stream, before any name is resolved.
func (a *Agent) authorize(ctx context.Context, in *Incoming) error {
	if err := checkTarget(ctx, in); err != nil {
		return err
	}
	if a.Policy == nil {
		return &policy.Denied{Reason: "the agent has no policy", Target: in.parsed}
	}
	r := a.request(in)
	if err := a.Policy.Authorize(ctx, r); err != nil {
		return err
	}
	a.audit(r)
	return nil
}

func (a *Agent) request(in *Incoming) policy.Request {
	return policy.Request{Subject: in.Target.Subject, Agent: a.Name, Target: in.parsed, Labels: a.Labels}
}

// Open opens a stream to a handler of the gateway. Errors are *[OpenError]; while
// the agent is not connected they match ErrNotConnected. See [Session.Open].
func (a *Agent) Open(ctx context.Context, t Target) (transport.Stream, error) {
	a.init()
	a.mu.Lock()
	l := a.link
	a.mu.Unlock()
	if _, err := policy.ParseTarget(t.Service, t.Address); err != nil {
		code, reason := refusal(err)
		return nil, &OpenError{Target: t, Code: code, Reason: reason, Err: err}
	}
	if l == nil {
		return nil, notConnected("", t)
	}
	return l.open(ctx, t)
}

// Status returns what the agent is doing.
func (a *Agent) Status() Status {
	a.init()
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.status
	if ld := a.ladders[st.Gateway]; ld != nil {
		st.Rungs = ld.snapshot()
	}
	if a.link != nil {
		st.Rungs[a.link.rung].Current = true
		st.RTT = a.link.roundTrip()
		st.Draining = a.link.peerDrain.Load() != nil
	}
	return st
}

func (a *Agent) setState(s State, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.status.State != s {
		a.status.State, a.status.Since = s, time.Now()
		close(a.changed)
		a.changed = make(chan struct{})
	}
	if err != nil {
		a.status.LastError = err
	}
}

// WaitConnected returns as soon as the agent is connected: a daemon is ready then.
// When ctx ends first, the error matches ErrNotConnected and the cause of ctx, and
// wraps the last failure.
func (a *Agent) WaitConnected(ctx context.Context) error {
	a.init()
	for {
		a.mu.Lock()
		st, changed := a.status, a.changed
		a.mu.Unlock()
		if st.State == StateConnected {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := fmt.Errorf("tunnel: agent: %w: %w", ErrNotConnected, context.Cause(ctx))
			if st.LastError != nil {
				err = fmt.Errorf("%w; last failure: %w", err, st.LastError)
			}
			return err
		}
	}
}

// Stats returns the counters of this agent.
func (a *Agent) Stats() Stats {
	a.init()
	st := a.counters.snapshot()
	for _, l := range a.enforcement.connected() {
		st.Connections++
		st.Streams += l.activeStreams()
	}
	return st
}

// Shutdown drains the agent: the gateway sends nothing new, the open streams may end.
// When they have, or when ctx ends, the connection closes, Run returns ErrAgentClosed
// and Shutdown returns, with the cause of ctx if streams were cut. An agent that was
// shut down cannot run again.
func (a *Agent) Shutdown(ctx context.Context) error {
	a.init()
	a.mu.Lock()
	a.closing = true
	running := a.running
	a.mu.Unlock()
	var cut atomic.Bool
	each(a.enforcement.connected(), func(l *link) {
		l.drain(ctx, wire.Drain{Reason: "the agent is shutting down"})
		if l.activeStreams() > 0 {
			cut.Store(true)
		}
		l.close(transport.Draining, "the agent is shutting down")
	})
	a.stop()
	if running != nil {
		<-running
	}
	if cut.Load() && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}
