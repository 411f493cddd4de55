package mux

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/outgate/outgate/transport"
)

var (
	errClosed      = fmt.Errorf("mux: stream closed: %w", net.ErrClosed)
	errWriteClosed = fmt.Errorf("mux: write after CloseWrite: %w", net.ErrClosed)
)

// Stream is one stream of a [Mux]. It implements transport.Stream, and
// io.WriterTo so that io.Copy passes on what arrives without a copy.
type Stream struct {
	m    *Mux
	id   uint32
	ours bool // this side opened it

	readMu  sync.Mutex // one Read at a time
	writeMu sync.Mutex // one Write at a time, and no end in the middle of it

	mu       sync.Mutex
	in       inbound
	reader   waiter
	failed   *transport.StreamError // reset, by either side
	closed   bool                   // Close was called
	released bool                   // Close or Reset was called; the Mux forgets the stream

	out outbound // guarded by the mutex of the sender
}

func newStream(m *Mux, id uint32, ours bool) *Stream {
	s := &Stream{m: m, id: id, ours: ours}
	s.reader.cond.L = &s.mu
	s.in.window, s.in.limit = leastWindow, leastWindow
	s.out.writer.cond.L = &m.sender.mu
	s.out.limit = leastWindow
	return s
}

// Close implements net.Conn.
func (s *Stream) Close() error {
	s.mu.Lock()
	s.closed = true
	s.m.sender.close(s, s.released || s.failed != nil, s.in.ended)
	if s.released {
		s.mu.Unlock()
		return nil
	}
	s.release()
	return nil
}

// Reset implements transport.Stream.
func (s *Stream) Reset(code transport.Code) error {
	s.mu.Lock()
	if s.released {
		s.mu.Unlock()
		return nil
	}
	if s.failed == nil {
		s.failed = &transport.StreamError{Code: code}
		s.m.sender.reset(s, s.failed)
	}
	s.release()
	return nil
}

// release ends what is pending and makes the Mux forget the stream. It unlocks
// s.mu.
func (s *Stream) release() {
	s.released = true
	late := s.m.sender.lateFrames(s) * lateFrame
	if !s.in.ended {
		late += int64(s.in.limit - s.in.received)
	}
	s.m.late.Add(late)
	s.m.unreserve(s.in.reserved)
	s.in.reserved = 0
	s.in.drop()
	s.reader.cond.Broadcast()
	s.mu.Unlock()
	s.m.forget(s)
	s.m.sender.flush()
}

// SetDeadline implements net.Conn.
func (s *Stream) SetDeadline(t time.Time) error {
	if err := s.SetReadDeadline(t); err != nil {
		return err
	}
	return s.SetWriteDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (s *Stream) SetReadDeadline(t time.Time) error {
	if s.isClosed() {
		return errClosed
	}
	s.reader.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (s *Stream) SetWriteDeadline(t time.Time) error {
	if s.isClosed() {
		return errClosed
	}
	s.out.writer.set(t)
	return nil
}

func (s *Stream) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// LocalAddr implements net.Conn.
func (s *Stream) LocalAddr() net.Addr { return s.m.LocalAddr() }

// RemoteAddr implements net.Conn.
func (s *Stream) RemoteAddr() net.Addr { return s.m.RemoteAddr() }
