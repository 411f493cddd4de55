package websocket

import (
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/xtaci/smux"

	"github.com/outgate/outgate/transport"
)

var (
	errClosed      = fmt.Errorf("websocket: stream closed: %w", net.ErrClosed)
	errWriteClosed = fmt.Errorf("websocket: write after CloseWrite: %w", net.ErrClosed)
)

// stream is one stream. smux holds what arrived and was not read; everything
// else is here.
type stream struct {
	m    *mux
	id   uint32
	ours bool // this side opened it

	readMu  sync.Mutex // one Read at a time
	writeMu sync.Mutex // one Write at a time, and no end in the middle of it
	wake    chan struct{}

	// What the sender knows of the stream, guarded by the mutex of the sender.
	offer    []byte // data that stands in line
	update   windowUpdate
	updating bool // update waits to be sent

	mu            sync.Mutex
	smux          *smux.Stream // nil until smux knows the stream
	in            inbound
	out           outbound
	readDeadline  time.Time
	writeDeadline time.Time
	writing       bool
	writeEnded    bool                   // by CloseWrite or Close
	stopped       *transport.StreamError // the peer reads no more
	failed        *transport.StreamError // reset, by either side
	closed        bool                   // Close was called
	released      bool                   // Close or Reset was called; the mux forgets the stream
}

func newStream(m *mux, id uint32, ours bool) *stream {
	return &stream{
		m:    m,
		id:   id,
		ours: ours,
		wake: make(chan struct{}, 1),
		in:   inbound{window: initialWindow},
		out:  outbound{limit: initialWindow},
	}
}

// signal makes a pending Write look again.
func (s *stream) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.released {
		s.closed = true
		s.mu.Unlock()
		return nil
	}
	s.closed, s.released = true, true
	s.sayGoodbye()
	s.mu.Unlock()
	s.release()
	return nil
}

// sayGoodbye tells the peer how both directions end because of Close. s.mu is
// held.
func (s *stream) sayGoodbye() {
	if s.failed != nil {
		return // it knows
	}
	if s.writing { // what was sent is incomplete
		s.m.sender.overtake(control{kindReset, s.id, uint64(transport.Canceled)})
		return
	}
	if !s.writeEnded && s.stopped == nil {
		s.m.sender.inOrder(control{kindEnd, s.id, s.out.bytes})
	}
	if !s.in.ended {
		s.m.sender.overtake(control{kindStop, s.id, uint64(transport.Canceled)})
	}
}

// Reset implements transport.Stream.
func (s *stream) Reset(code transport.Code) error {
	s.mu.Lock()
	if s.released {
		s.mu.Unlock()
		return nil
	}
	s.released = true
	if s.failed == nil {
		s.failed = &transport.StreamError{Code: code}
		s.m.sender.overtake(control{kindReset, s.id, uint64(code)})
	}
	s.mu.Unlock()
	s.release()
	return nil
}

// release ends what is pending and lets smux and the mux forget the stream.
func (s *stream) release() {
	s.signal()
	// This sends FIN, behind everything that was sent. It throws unread data
	// away and ends a pending Read. The sender takes FIN at once, so that it
	// does not wait.
	_ = s.smux.Close()
	s.m.forget(s)
}

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.readDeadline = t
	if s.failed == nil && !s.in.ended { // else wakeReader must stay
		return s.smux.SetReadDeadline(t)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.writeDeadline = t
	s.signal()
	return nil
}

// LocalAddr implements net.Conn.
func (s *stream) LocalAddr() net.Addr { return s.m.LocalAddr() }

// RemoteAddr implements net.Conn.
func (s *stream) RemoteAddr() net.Addr { return s.m.RemoteAddr() }

// bind gives a stream its smux stream.
func (s *stream) bind(st *smux.Stream) {
	// smux closes a stream whose wrapper is garbage, even while a Read holds
	// what is inside the wrapper.
	runtime.SetFinalizer(st, nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.smux = st
	if s.failed != nil || s.in.ended {
		s.wakeReader()
	}
}

// The rest is called by the receiver, for what the peer sent.

// arrives counts n bytes that smux is about to read.
func (s *stream) arrives(n int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in.frame(n)
}

// mayWrite applies an update of the peer's window.
func (s *stream) mayWrite(u windowUpdate) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.signal()
	return s.out.update(u)
}

// ends records that total bytes were all.
func (s *stream) ends(total uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.wakeReader()
	return s.in.end(total)
}

// wasReset ends both directions.
func (s *stream) wasReset(code transport.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = &transport.StreamError{Code: code, Remote: true}
	}
	s.wakeReader()
	s.signal()
}

// stop ends the direction in which this side writes.
func (s *stream) stop(code transport.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == nil {
		s.stopped = &transport.StreamError{Code: code, Remote: true}
	}
	s.signal()
}

// forgotten records that the peer keeps nothing of the stream. A peer that did
// not say how its direction ended has truncated it; smux ends the pending Read.
func (s *stream) forgotten() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped == nil {
		s.stopped = &transport.StreamError{Code: transport.Canceled, Remote: true}
	}
	s.signal()
}

// wakeReader ends a Read that waits for data, now and later: no more will come.
// s.mu is held.
func (s *stream) wakeReader() {
	if s.smux != nil {
		_ = s.smux.SetReadDeadline(time.Unix(1, 0))
	}
}
