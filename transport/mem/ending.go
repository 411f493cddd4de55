package mem

import "github.com/outgate/outgate/transport"

// CloseWrite implements transport.Stream.
func (s *stream) CloseWrite() error {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	switch {
	case s.closed || s.writeEnded:
		return nil
	case s.reset != nil:
		return s.reset
	case s.mux.ended != nil:
		return s.mux.ended
	case s.writing:
		// The end would make half a Write look whole.
		s.endWithReset(transport.Canceled)
		return nil
	}
	s.announce()
	s.writeEnded = true
	s.writable.Broadcast()
	s.mux.link.deliver(s.peer.finish)
	return nil
}

// Close implements net.Conn.
func (s *stream) Close() error {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	if s.ended {
		return nil
	}
	s.closed = true
	if s.writing && s.reset == nil {
		s.endWithReset(transport.Canceled)
		return nil
	}
	s.announce()
	s.end(func() {
		s.peer.finish()
		s.peer.refuse()
	})
	return nil
}

// Reset implements transport.Stream.
func (s *stream) Reset(code transport.Code) error {
	s.mux.link.mu.Lock()
	defer s.mux.link.mu.Unlock()
	if !s.ended {
		s.endWithReset(code)
	}
	return nil
}

func (s *stream) endWithReset(code transport.Code) {
	s.announce()
	if s.reset == nil {
		s.reset = &transport.StreamError{Code: code}
	}
	s.end(func() { s.peer.abort(code) })
}

// end ends this side for good and tells the peer how.
func (s *stream) end(arrive func()) {
	s.ended = true
	s.received = ring{}
	s.readDeadline.stop()
	s.writeDeadline.stop()
	delete(s.mux.streams, s)
	s.wake()
	s.freeSlot()
	if s.mux.ended != nil {
		return // the carrier is gone: nothing of this reaches the peer
	}
	s.mux.link.deliver(func() {
		arrive()
		s.peer.peerEnded = true
		s.peer.freeSlot()
	})
}

// freeSlot lets the opener open another stream once both sides have ended this
// one. It runs exactly once with both set: when the later of them is.
func (s *stream) freeSlot() {
	if s.opener && s.ended && s.peerEnded {
		s.mux.opened--
		s.mux.slots.notify()
	}
}

// finish, refuse and abort are what the peer's end does to this side.

func (s *stream) finish() {
	s.finished = true
	s.readable.Broadcast()
}

func (s *stream) refuse() {
	s.refused = true
	s.writable.Broadcast()
}

func (s *stream) abort(code transport.Code) {
	if s.ended || s.reset != nil {
		return
	}
	s.reset = &transport.StreamError{Code: code, Remote: true}
	s.received = ring{}
	s.wake()
}

func (s *stream) wake() {
	s.readable.Broadcast()
	s.writable.Broadcast()
}
