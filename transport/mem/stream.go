package mem

import (
	"io"
	"net"
	"sync"
	"time"

	"github.com/outgate/outgate/transport"
)

var _ transport.Stream = (*stream)(nil)

// stream is one side of a stream. link.mu guards all of it.
type stream struct {
	mux       *Mux
	peer      *stream
	opener    bool // this side opened it, and pays its slot
	announced bool // the peer knows of it; only the opener cares

	readable     sync.Cond
	received     ring
	finished     bool // the peer ended its direction
	readDeadline deadline

	writable      sync.Cond
	inFlight      int  // bytes sent that the peer has not read
	writing       bool // a Write is under way
	writeEnded    bool // CloseWrite
	refused       bool // the peer closed and does not want more
	writeDeadline deadline

	closed    bool                   // by Close
	reset     *transport.StreamError // by either side
	ended     bool                   // by this side's Close or Reset
	peerEnded bool
}

// newStream makes both sides of a stream that opener opens.
func newStream(opener *Mux) *stream {
	s := &stream{mux: opener, opener: true}
	s.peer = &stream{mux: opener.peer, peer: s}
	for _, x := range []*stream{s, s.peer} {
		x.readable.L = &opener.link.mu
		x.writable.L = &opener.link.mu
	}
	return s
}

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	for {
		switch {
		case s.closed:
			return 0, s.opError("read", net.ErrClosed)
		case s.reset != nil:
			return 0, s.reset
		case s.readDeadline.expired:
			return 0, s.opError("read", errTimeout)
		case len(p) == 0:
			return 0, nil
		case s.mux.ended != nil && !s.mux.ended.Remote:
			return 0, s.mux.ended // what had arrived is gone
		case s.received.n > 0:
			n := s.received.read(p)
			s.returnCredit(n)
			return n, nil
		case s.finished:
			return 0, io.EOF
		case s.mux.ended != nil:
			return 0, s.mux.ended
		}
		s.readable.Wait()
	}
}

// returnCredit tells the peer that n bytes of its window are free again.
func (s *stream) returnCredit(n int) {
	if !s.mux.link.frozen { // spares the closure
		s.peer.credit(n)
		return
	}
	s.mux.link.deliver(func() { s.peer.credit(n) })
}

func (s *stream) credit(n int) {
	s.inFlight -= n
	s.writable.Broadcast()
}

// Write implements net.Conn. Concurrent Writes do not mix.
func (s *stream) Write(p []byte) (int, error) {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	for s.writing && s.writeError() == nil {
		s.writable.Wait()
	}
	if err := s.writeError(); err != nil {
		return 0, err
	}
	s.writing = true
	defer func() {
		s.writing = false
		s.writable.Broadcast()
	}()
	written := 0
	for {
		n := min(len(p), s.mux.link.config.window-s.inFlight)
		if n > 0 {
			s.send(p[:n])
			written += n
			p = p[n:]
		}
		if len(p) == 0 {
			return written, nil
		}
		s.writable.Wait()
		if err := s.writeError(); err != nil {
			return written, err
		}
	}
}

func (s *stream) writeError() error {
	switch {
	case s.closed, s.writeEnded && s.reset == nil:
		return s.opError("write", net.ErrClosed)
	case s.reset != nil:
		return s.reset
	case s.refused:
		return &transport.StreamError{Code: transport.Canceled, Remote: true}
	case s.mux.ended != nil:
		return s.mux.ended
	case s.writeDeadline.expired:
		return s.opError("write", errTimeout)
	}
	return nil
}

// send passes p to the peer, which has room for it.
func (s *stream) send(p []byte) {
	s.announce()
	s.inFlight += len(p)
	if !s.mux.link.frozen { // spares the copy
		s.peer.receive(p)
		return
	}
	p = append([]byte(nil), p...)
	s.mux.link.deliver(func() { s.peer.receive(p) })
}

func (s *stream) receive(p []byte) {
	if s.ended || s.reset != nil || s.mux.ended != nil {
		return
	}
	s.received.write(p, s.mux.link.config.window)
	s.readable.Broadcast()
}

// announce makes a new stream visible to the peer.
func (s *stream) announce() {
	if !s.opener || s.announced {
		return
	}
	s.announced = true
	s.mux.link.deliver(func() { s.peer.mux.enqueue(s.peer) })
}

// opError is an error of this side, in the shape that package net gives it.
func (s *stream) opError(op string, err error) error {
	return &net.OpError{Op: op, Net: "mem", Source: s.mux.local, Addr: s.mux.remote, Err: err}
}

// LocalAddr is that of the Mux.
func (s *stream) LocalAddr() net.Addr { return s.mux.local }

// RemoteAddr is that of the Mux.
func (s *stream) RemoteAddr() net.Addr { return s.mux.remote }

// SetDeadline implements net.Conn.
func (s *stream) SetDeadline(t time.Time) error { return s.setDeadlines(t, true, true) }

// SetReadDeadline implements net.Conn.
func (s *stream) SetReadDeadline(t time.Time) error { return s.setDeadlines(t, true, false) }

// SetWriteDeadline implements net.Conn.
func (s *stream) SetWriteDeadline(t time.Time) error { return s.setDeadlines(t, false, true) }

func (s *stream) setDeadlines(t time.Time, read, write bool) error {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	if s.closed {
		return s.opError("set deadline", net.ErrClosed)
	}
	if s.ended {
		return s.reset
	}
	if read {
		s.readDeadline.set(t, &s.readable)
	}
	if write {
		s.writeDeadline.set(t, &s.writable)
	}
	return nil
}
