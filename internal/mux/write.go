package mux

import (
	"os"

	"github.com/outgate/outgate/transport"
)

// outbound is the direction of a stream toward the peer. The lock of the sender
// guards it.
type outbound struct {
	sent   uint64 // bytes that are queued or written
	limit  uint64 // what sent may reach
	credit uint64 // what the peer is to learn about the other direction, if not 0

	offer  []byte // what a Write has left to send, while it waits
	inLine bool

	writer  waiter
	writing bool                   // a Write is under way
	ended   bool                   // by CloseWrite
	closed  bool                   // by Close
	stopped *transport.StreamError // the peer reads no more
	failed  *transport.StreamError // reset, by either side
}

// allowed returns how much of n bytes may go out in one frame.
func (o *outbound) allowed(n int) int {
	return int(min(uint64(n), o.limit-o.sent, maxFrame))
}

// Write implements net.Conn. What it has counted is queued and needs neither p
// nor the caller any more.
func (s *Stream) Write(p []byte) (n int, err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	w, o := s.m.sender, &s.out
	w.mu.Lock()
	o.writing = true
	for err = s.unwritable(); err == nil && len(p) > 0 && !w.full(); err = s.unwritable() {
		k := o.allowed(len(p))
		if k == 0 {
			break
		}
		if !w.ending {
			w.queue = w.queue.data(s.id, p[:k])
		}
		o.sent += uint64(k)
		n += k
		p = p[k:]
	}
	if err == nil && len(p) > 0 {
		var k int
		k, err = s.waitInLine(p)
		n += k
	}
	o.writing = false
	w.mu.Unlock()
	w.flush()
	return n, err
}

// waitInLine offers p to whoever writes, and waits until all of it was taken. The
// lock of the sender is held, and released meanwhile.
func (s *Stream) waitInLine(p []byte) (n int, err error) {
	w, o := s.m.sender, &s.out
	o.offer = p
	w.standInLine(s)
	w.mu.Unlock()
	w.flush()
	w.mu.Lock()
	for len(o.offer) > 0 {
		if err = s.unwritable(); err != nil {
			break
		}
		o.writer.wait()
	}
	n = len(p) - len(o.offer)
	o.offer = nil
	w.leaveLine(s)
	return n, err
}

// unwritable returns what ends a Write. The lock of the sender is held.
func (s *Stream) unwritable() error {
	o := &s.out
	switch {
	case o.closed:
		return errClosed
	case o.failed != nil:
		return o.failed
	case o.ended:
		return errWriteClosed
	case o.stopped != nil:
		return o.stopped
	}
	if cause := s.m.ended(); cause != nil {
		return cause
	}
	if o.writer.expired() {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// CloseWrite implements transport.Stream. It waits for a Write that is under
// way, since what it sends belongs before the end.
func (s *Stream) CloseWrite() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	if err := s.m.sender.closeWrite(s); err != nil {
		return err
	}
	s.m.sender.flush()
	return nil
}

func (w *sender) closeWrite(s *Stream) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &s.out
	switch {
	case o.closed:
		return errClosed
	case o.failed != nil:
		return o.failed
	case o.ended:
		return nil
	}
	if cause := w.m.ended(); cause != nil {
		return cause
	}
	o.ended = true
	if o.stopped == nil {
		w.inOrder(frameEnd, s.id, o.sent)
	}
	return nil
}
