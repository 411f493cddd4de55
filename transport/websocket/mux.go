package websocket

import (
	"context"
	"crypto/tls"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/xtaci/smux"

	"github.com/outgate/outgate/transport"
)

// mux is one connection over smux.
type mux struct {
	cfg     Config
	carrier carrier
	state   tls.ConnectionState
	smux    *smux.Session
	sender  *sender

	ctx    context.Context
	cancel context.CancelCauseFunc
	ready  chan struct{} // closed when the peer's first grant of streams arrived
	closed chan struct{} // closed when nothing of the connection is left

	growth atomic.Int64 // what is left of WindowBudget
	rtt    atomic.Int64 // nanoseconds

	opening sync.Mutex // so that streams are announced in the order of their numbers

	mu         sync.Mutex
	streams    map[uint32]*stream
	nextOpen   uint32
	nextAccept uint32
	opened     uint64        // streams that this side has opened
	mayOpen    uint64        // and may open, as the peer says
	moreSlots  chan struct{} // closed when mayOpen grows
	accepted   uint64        // streams that the peer has opened
	finished   uint64        // and that were closed or reset here
	granted    uint64        // what the peer knows that it may open
	backlog    []*stream     // streams that AcceptStream will return
	arrived    chan struct{} // capacity 1; backlog is not empty
}

// newMux starts a connection on a carrier that has just been made. A client has
// measured the round trip.
func newMux(c carrier, client bool, rtt time.Duration, state tls.ConnectionState, cfg Config) (*mux, error) {
	m := &mux{
		cfg:        cfg,
		carrier:    c,
		state:      state,
		ready:      make(chan struct{}),
		closed:     make(chan struct{}),
		streams:    make(map[uint32]*stream),
		nextOpen:   3,
		nextAccept: 2,
		moreSlots:  make(chan struct{}),
		granted:    uint64(cfg.MaxStreams),
		arrived:    make(chan struct{}, 1),
	}
	start := smux.Client
	if !client {
		start, m.nextOpen, m.nextAccept = smux.Server, 2, 3
	}
	m.growth.Store(int64(cfg.WindowBudget))
	m.rtt.Store(int64(rtt))
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.sender = newSender(c, m.granted, cfg.WriteTimeout, m.stuck, m.writeFailed)

	running := make(chan struct{})
	session, err := start(&smuxConn{receiver: receiver{m: m, src: c}, running: running}, &smux.Config{
		Version:           smuxVersion,
		KeepAliveDisabled: true, // the tunnel has its own pings, which measure a round trip
		MaxFrameSize:      maxFrame,
		// The receiver holds every stream to its window, so these must never
		// be reached: smux would stop reading the connection.
		MaxReceiveBuffer: math.MaxInt32,
		MaxStreamBuffer:  math.MaxInt32,
	})
	if err != nil {
		m.cancel(err)
		return nil, fmt.Errorf("websocket: start the multiplexer: %w", err)
	}
	m.smux = session
	close(running)
	go m.sender.run()
	return m, nil
}

// awaitReady implements session.
func (m *mux) awaitReady(ctx context.Context, code func() transport.Code) error {
	start := time.Now()
	select {
	case <-m.ready:
		if m.rtt.Load() == 0 { // a gateway: the agent starts when it has its answer
			m.rtt.Store(int64(time.Since(start)))
		}
		return nil
	case <-m.ctx.Done():
	case <-ctx.Done():
		_ = m.CloseWithError(code(), "the handshake did not finish")
	}
	<-m.closed
	return m.ended()
}

// OpenStream implements transport.Mux.
func (m *mux) OpenStream(ctx context.Context) (transport.Stream, error) {
	if err := m.takeSlot(ctx); err != nil {
		return nil, err
	}
	m.opening.Lock()
	defer m.opening.Unlock()
	m.mu.Lock()
	id := m.nextOpen
	if id > math.MaxUint32-2 {
		m.mu.Unlock()
		return nil, fmt.Errorf("websocket: this connection has used up its stream numbers, dial another one: %w", transport.Draining)
	}
	m.nextOpen += 2
	// The peer can answer before smux returns.
	s := newStream(m, id, true)
	m.streams[id] = s
	m.mu.Unlock()

	st, err := m.smux.OpenStream()
	if err == nil && st.ID() != id {
		err = fmt.Errorf("websocket: smux opened stream %d instead of %d", st.ID(), id)
		m.end(&transport.CloseError{Code: transport.Internal, Reason: err.Error()})
	}
	if err != nil {
		if ended := m.ended(); ended != nil {
			err = ended
		}
		return nil, err
	}
	s.bind(st)
	return s, nil
}

// AcceptStream implements transport.Mux.
func (m *mux) AcceptStream(ctx context.Context) (transport.Stream, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if err := m.ended(); err != nil {
			return nil, err
		}
		if s := m.nextAccepted(); s != nil {
			return s, nil
		}
		select {
		case <-m.arrived:
		case <-ctx.Done():
		case <-m.ctx.Done():
		}
	}
}

func (m *mux) nextAccepted() *stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.backlog) == 0 {
		return nil
	}
	s := m.backlog[0]
	m.backlog[0] = nil
	if m.backlog = m.backlog[1:]; len(m.backlog) > 0 {
		m.signalArrived()
	} else {
		m.backlog = nil
	}
	return s
}

func (m *mux) signalArrived() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// ConnectionState implements transport.Mux.
func (m *mux) ConnectionState() tls.ConnectionState { return m.state }

// LocalAddr implements transport.Mux.
func (m *mux) LocalAddr() net.Addr { return m.carrier.LocalAddr() }

// RemoteAddr implements transport.Mux.
func (m *mux) RemoteAddr() net.Addr { return m.carrier.RemoteAddr() }

// Context implements transport.Mux.
func (m *mux) Context() context.Context { return m.ctx }

// CloseWithError implements transport.Mux.
func (m *mux) CloseWithError(code transport.Code, reason string) error {
	m.end(&transport.CloseError{Code: code, Reason: cleanReason(reason)})
	<-m.closed
	return nil
}

// ended returns the error of a connection that has ended.
func (m *mux) ended() error {
	if m.ctx.Err() == nil {
		return nil
	}
	return context.Cause(m.ctx)
}

// end ends the connection and all streams; the first cause counts. The carrier
// is closed behind the back of the caller.
func (m *mux) end(cause *transport.CloseError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ctx.Err() != nil {
		return
	}
	m.cancel(cause)
	// smux ends every pending Read, once it has delivered what arrived.
	_ = m.smux.Close()
	go m.tearDown(cause)
}

// tearDown closes the carrier: with a goodbye if this side closes, in bounded
// time in any case.
func (m *mux) tearDown(cause *transport.CloseError) {
	defer close(m.closed)
	if cause.Remote {
		m.carrier.Cut()
	}
	cut := time.AfterFunc(closeTimeout, m.carrier.Cut)
	defer cut.Stop()
	m.sender.close()
	<-m.sender.done
	m.carrier.Close(cause)
	m.carrier.Cut()
}

// writeFailed ends a connection that takes no data any more. If the peer closed
// it, the reader is about to learn why, and knows better.
func (m *mux) writeFailed(err error) {
	t := time.NewTimer(closeTimeout)
	defer t.Stop()
	select {
	case <-m.ctx.Done():
	case <-t.C:
		m.end(closeCause(err))
	}
}

// stuck ends a connection that takes no data in time.
func (m *mux) stuck() {
	m.end(&transport.CloseError{
		Code:   transport.Timeout,
		Reason: fmt.Sprintf("the network took no data for %v", m.cfg.WriteTimeout),
		Remote: true,
	})
}

// reserve takes n bytes of the budget for larger windows, or none if less is
// left, and returns what it took.
func (m *mux) reserve(n uint64) uint64 {
	if m.growth.Add(-int64(n)) < 0 {
		m.growth.Add(int64(n))
		return 0
	}
	if !m.cfg.Budget.shared().Take(int(n)) {
		m.growth.Add(int64(n))
		return 0
	}
	return n
}

// roundTrip is how long the peer took to answer at the start. A guess that is too
// long makes windows larger than they need be, never slower.
func (m *mux) roundTrip() time.Duration {
	return max(time.Duration(m.rtt.Load()), time.Millisecond)
}
