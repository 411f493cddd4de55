package mux

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/transport"
)

var (
	_ transport.Mux    = (*Mux)(nil)
	_ transport.Stream = (*Stream)(nil)
)

// Mux is one side of a connection. It implements transport.Mux. Its OpenStream
// sends nothing yet: the peer learns of a stream with what is first written to it,
// also if that is nothing.
type Mux struct {
	cfg    Config
	conn   net.Conn
	state  tls.ConnectionState
	start  time.Time
	sender *sender

	ctx    context.Context
	cancel context.CancelCauseFunc
	cause  atomic.Pointer[transport.CloseError] // that of ctx
	ready  chan struct{}                        // closed when the peer's STREAMS has arrived
	closed chan struct{}                        // closed when nothing of the connection is left
	read   chan struct{}                        // closed when nobody reads any more

	budget Budget                // what is left of Config.WindowBudget
	rtt    atomic.Int64          // nanoseconds; 0 before it is known
	late   atomic.Int64          // bytes that may still arrive for streams that are over
	lost   atomic.Pointer[error] // of the Write that failed

	mu         sync.Mutex
	streams    map[uint32]*Stream
	nextOpen   uint32
	nextAccept uint32
	opened     uint32        // streams that this side has opened
	mayOpen    uint32        // and may open, as the peer says
	moreSlots  chan struct{} // closed when mayOpen grows; nil if nobody waits
	accepted   uint32        // streams that the peer has opened
	finished   uint32        // and that were closed or reset here
	granted    uint32        // what the peer knows that it may open
	backlog    []*Stream     // streams that AcceptStream will return
	arrived    chan struct{} // capacity 1; backlog is not empty
}

// New starts a connection and owns conn from then on. The peer must do the same
// with client the other way round. Both may use the Mux at once; Ready tells when
// the peer has.
func New(conn net.Conn, client bool, state tls.ConnectionState, cfg Config) *Mux {
	m := &Mux{
		cfg:        cfg.withDefaults(),
		conn:       conn,
		state:      state,
		start:      time.Now(),
		ready:      make(chan struct{}),
		closed:     make(chan struct{}),
		read:       make(chan struct{}),
		streams:    make(map[uint32]*Stream),
		nextOpen:   1,
		nextAccept: 2,
		arrived:    make(chan struct{}, 1),
	}
	if !client {
		m.nextOpen, m.nextAccept = 2, 1
	}
	m.budget.Put(m.cfg.WindowBudget)
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	m.sender = newSender(m)
	m.granted = uint32(m.cfg.MaxStreams)
	m.sender.streams = m.granted
	m.sender.ping.wanted = true
	m.sender.control() // so that STREAMS is the first frame
	go m.receive()
	m.sender.flush()
	return m
}

// Ready is closed when the peer has started too.
func (m *Mux) Ready() <-chan struct{} { return m.ready }

// OpenStream implements transport.Mux.
func (m *Mux) OpenStream(ctx context.Context) (transport.Stream, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		s, more, err := m.tryOpen()
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-more:
		case <-ctx.Done():
		case <-m.ctx.Done():
		}
	}
}

// tryOpen opens a stream, or returns what tells when there are more.
func (m *Mux) tryOpen() (_ *Stream, more <-chan struct{}, _ error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if cause := m.ended(); cause != nil {
		return nil, nil, cause
	}
	if m.opened == m.mayOpen {
		if m.moreSlots == nil {
			m.moreSlots = make(chan struct{})
		}
		return nil, m.moreSlots, nil
	}
	id := m.nextOpen
	if id > maxID-2 {
		return nil, nil, fmt.Errorf("mux: this connection has used up its stream numbers, dial another one: %w", transport.Draining)
	}
	m.nextOpen += 2
	m.opened++
	return m.addStream(id, true), nil, nil
}

// AcceptStream implements transport.Mux.
func (m *Mux) AcceptStream(ctx context.Context) (transport.Stream, error) {
	for {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if cause := m.ended(); cause != nil {
			return nil, cause
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

func (m *Mux) nextAccepted() *Stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.backlog) == 0 {
		return nil
	}
	s := m.backlog[0]
	m.backlog[0] = nil
	if m.backlog = m.backlog[1:]; len(m.backlog) > 0 {
		m.signalArrived()
	}
	return s
}

func (m *Mux) signalArrived() {
	select {
	case m.arrived <- struct{}{}:
	default:
	}
}

// ConnectionState implements transport.Mux.
func (m *Mux) ConnectionState() tls.ConnectionState { return m.state }

// LocalAddr implements transport.Mux.
func (m *Mux) LocalAddr() net.Addr { return m.conn.LocalAddr() }

// RemoteAddr implements transport.Mux.
func (m *Mux) RemoteAddr() net.Addr { return m.conn.RemoteAddr() }

// Context implements transport.Mux.
func (m *Mux) Context() context.Context { return m.ctx }

// now is the time since the start. It is never 0, which stands for never.
func (m *Mux) now() time.Duration { return time.Since(m.start) + 1 }

// ponged takes a measurement of the round trip. One that is longer than the ones
// before, because data stood in its way, counts little.
func (m *Mux) ponged(seq uint64) error {
	took, err := m.sender.ponged(seq)
	if err != nil {
		return err
	}
	took = max(took, 1)
	if before := time.Duration(m.rtt.Load()); before > 0 && took > before {
		took = before + (took-before)/8
	}
	m.rtt.Store(int64(took))
	return nil
}

// roundTrip is how long the peer takes to answer. A guess that is too long makes
// windows larger than they need be, never slower.
func (m *Mux) roundTrip() time.Duration {
	rtt := time.Duration(m.rtt.Load())
	if rtt == 0 {
		return 100 * time.Millisecond
	}
	return max(rtt, time.Millisecond)
}
