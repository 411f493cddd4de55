package websocket

import (
	"os"
	"time"
)

// Write implements net.Conn. What it has counted is in the hands of the sender
// and needs neither p nor the caller any more.
func (s *stream) Write(p []byte) (n int, err error) {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	defer s.doneWriting()
	for {
		size, err := s.takeWindow(len(p))
		if err != nil {
			return n, err
		}
		if size == 0 && len(p) > 0 {
			s.await()
			continue
		}
		if size > 0 && !s.m.sender.data(s, p[:size]) {
			if err := s.standInLine(size); err != nil {
				return n, err
			}
		}
		n += size
		if p = p[size:]; len(p) == 0 {
			return n, nil
		}
	}
}

// takeWindow reserves up to n bytes of the window, or none if it is full.
func (s *stream) takeWindow(n int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.writable(); err != nil {
		return 0, err
	}
	s.writing = true
	if n == 0 {
		return 0, nil
	}
	return s.out.take(n), nil
}

func (s *stream) doneWriting() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writing = false
}

// standInLine waits until the sender took the size bytes that were offered. On
// an error it did not.
func (s *stream) standInLine(size int) error {
	for !s.m.sender.taken(s) {
		s.mu.Lock()
		err := s.writable()
		s.mu.Unlock()
		if err == nil {
			s.await()
			continue
		}
		if !s.m.sender.withdraw(s) {
			return nil
		}
		s.mu.Lock()
		s.out.giveBack(size)
		s.mu.Unlock()
		return err
	}
	return nil
}

// writable returns what ends a Write. s.mu is held.
func (s *stream) writable() error {
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case s.writeEnded:
		return errWriteClosed
	case s.stopped != nil:
		return s.stopped
	}
	if err := s.m.ended(); err != nil {
		return err
	}
	if past(s.writeDeadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// await waits until writable or the window may have changed.
func (s *stream) await() {
	s.mu.Lock()
	deadline := s.writeDeadline
	s.mu.Unlock()
	var timeout <-chan time.Time
	if !deadline.IsZero() {
		t := time.NewTimer(time.Until(deadline))
		defer t.Stop()
		timeout = t.C
	}
	select {
	case <-s.wake:
	case <-timeout:
	case <-s.m.ctx.Done():
	}
}

// CloseWrite implements transport.Stream. It waits for a Write that is under
// way, since what it sends belongs before the end.
func (s *stream) CloseWrite() error {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case s.writeEnded:
		return nil
	}
	if err := s.m.ended(); err != nil {
		return err
	}
	s.writeEnded = true
	if s.stopped == nil {
		s.m.sender.inOrder(control{kindEnd, s.id, s.out.bytes})
	}
	return nil
}
