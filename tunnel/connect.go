package tunnel

import (
	"context"
	"fmt"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// connect holds a connection to a gateway, and better ones that take its place, and
// returns why the last one ended.
func (a *Agent) connect(ctx context.Context, gateway string) error {
	a.mu.Lock()
	a.status.Gateway = gateway
	ld := a.ladders[gateway]
	if ld == nil {
		ld = newLadder(a.Dialers, orDefault(a.ClimbMin, leastClimb), orDefault(a.ClimbMax, mostClimb))
		if a.ladders == nil {
			a.ladders = make(map[string]*ladder)
		}
		a.ladders[gateway] = ld
	}
	a.mu.Unlock()
	a.setState(StateConnecting, nil)
	l, err := a.reach(ctx, gateway, ld, ld.all())
	if err != nil {
		a.mu.Lock()
		a.status.Attempts++
		a.mu.Unlock()
		return err
	}
	for {
		next, err := a.hold(ctx, gateway, ld, l)
		if next == nil {
			return err
		}
		l = next
	}
}

// reach tries rungs in the given order until one works or the gateway refuses.
func (a *Agent) reach(ctx context.Context, gateway string, ld *ladder, order []int) (*link, error) {
	var failures ladderError
	for _, rung := range order {
		l, err := a.handshake(ctx, gateway, rung)
		if err == nil {
			ld.worked(rung)
			return l, nil
		}
		if ctx.Err() != nil {
			return nil, err // which says nothing about the transport
		}
		ld.failed(rung, err)
		failures = append(failures, err)
		if !isOfTransport(err) {
			break
		}
	}
	if len(failures) == 1 {
		return nil, failures[0]
	}
	return nil, failures
}

// hold serves a connection until it ends, and returns why; or until another one over a
// better rung takes its place, and returns that.
func (a *Agent) hold(ctx context.Context, gateway string, ld *ladder, l *link) (next *link, err error) {
	began := time.Now()
	ended := make(chan error, 1)
	a.serving.Go(func() { ended <- a.serve(ctx, l) })
	if !a.install(l) {
		l.close(transport.Draining, "the agent is shutting down")
		return nil, <-ended
	}
	climbing, stop := context.WithCancel(ctx)
	defer stop()
	better := make(chan *link, 1)
	a.serving.Go(func() { better <- a.climb(climbing, gateway, ld, l) })
	select {
	case next = <-better:
	case err = <-ended:
		stop()
		next = <-better // which may have come up just now
		a.uninstall(l)
		if next == nil {
			ld.ended(l.rung, time.Since(began), orDefault(a.StableAfter, defaultStableAfter), err)
		}
		return next, err
	}
	if next == nil { // there is nothing better, or no time left
		err = <-ended
		a.uninstall(l)
		ld.ended(l.rung, time.Since(began), orDefault(a.StableAfter, defaultStableAfter), err)
		return nil, err
	}
	next.log.Info("moved to a better transport")
	a.serving.Go(func() {
		l.retire(ctx)
		l.close(transport.Draining, "the agent has moved to a better transport")
	})
	return next, nil
}

// serve runs a connection to its end and returns why it ended. It ends with ctx.
func (a *Agent) serve(ctx context.Context, l *link) error {
	close(l.welcomed)
	defer a.join(l)()
	defer context.AfterFunc(ctx, func() { l.close(transport.NoError, "the agent is stopping") })()
	cause := l.run()
	if d := l.peerDrain.Load(); d != nil {
		return &drainedError{err: cause, within: time.Duration(min(d.WithinMillis, 1<<31)) * time.Millisecond}
	}
	return cause
}

// install makes l the agent's connection, unless the agent is shutting down.
func (a *Agent) install(l *link) bool {
	a.mu.Lock()
	if a.closing {
		a.mu.Unlock()
		return false
	}
	a.link = l
	a.status.GatewayID = l.gatewayID
	a.status.Attempts = 0
	a.mu.Unlock()
	a.setState(StateConnected, nil)
	l.log.Info("connected", "gateway_id", l.gatewayID)
	return true
}

func (a *Agent) uninstall(l *link) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.link == l {
		a.link = nil
		a.status.GatewayID = ""
	}
}

// climb tries the rungs above that of l, now and then, until one works or ctx ends. It
// returns nil when there is none.
func (a *Agent) climb(ctx context.Context, gateway string, ld *ladder, l *link) *link {
	for l.rung > 0 {
		timer := time.NewTimer(ld.plan(l.rung))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		if a.isClosing() || l.peerDrain.Load() != nil {
			continue // a new connection would not stay
		}
		next, err := a.reach(ctx, gateway, ld, above(l.rung))
		if err == nil {
			return next
		}
		l.log.Debug("a better transport does not work yet", "error", err)
	}
	return nil
}

func (a *Agent) isClosing() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.closing
}

// handshake dials over a rung of the ladder and exchanges hello and welcome.
func (a *Agent) handshake(ctx context.Context, gateway string, rung int) (*link, error) {
	timeout := orDefault(a.HandshakeTimeout, 10*time.Second)
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	mux, err := a.Dialers[rung].Dial(ctx, gateway)
	if err != nil {
		return nil, err
	}
	fail := func(code transport.Code, err error) (*link, error) {
		if mux.Context().Err() != nil {
			err = closeCause(mux) // the gateway's reason says more than a failed read
		}
		_ = mux.CloseWithError(code, wire.PrintableReason(err.Error()))
		return nil, fmt.Errorf("handshake: %w", err)
	}
	control, err := mux.OpenStream(ctx)
	if err != nil {
		return fail(transport.Internal, err)
	}
	defer context.AfterFunc(ctx, func() { _ = control.SetDeadline(longAgo) })()
	digest := a.digest()
	err = wire.WriteFrame(control, wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{
		Instance: a.instance,
		Software: a.Software,
		Services: a.services.names(),
		Policy:   digest,
	}})
	if err != nil {
		return fail(transport.Internal, err)
	}
	frame, err := wire.ReadFrame(control)
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("no welcome within %s: %w", timeout, context.Cause(ctx))
		}
		return fail(transport.Protocol, err)
	}
	if frame.Type != wire.TypeWelcome {
		return fail(transport.Protocol, fmt.Errorf("the first frame is %q, not welcome", frame.Type))
	}
	log := a.log.With("gateway", gateway, "transport", dialerName(a.Dialers[rung]))
	l := newLink(mux, control, log, linkConfig{
		agent:       a.Name,
		liveness:    a.Liveness.withDefaults(),
		openTimeout: orDefault(a.OpenTimeout, defaultOpenTimeout),
		maxPending:  int64(orDefault(a.MaxPendingOpens, defaultMaxPending)),
		opensPerSec: opensPerSecond(a.MaxOpensPerSecond),
		services:    &a.services,
		authorize:   a.authorize,
		handlers:    &a.handlers,
		counters:    &a.counters,
		enforcement: &a.enforcement,
	})
	l.announced = digest
	l.rung, l.gatewayID = rung, frame.Welcome.Gateway
	if skew := time.Until(frame.Welcome.Time).Abs(); !frame.Welcome.Time.IsZero() && skew > time.Minute {
		log.Warn("the clocks of agent and gateway differ; certificates may seem expired: check NTP on both", "skew", skew.Round(time.Second))
	}
	return l, nil
}
