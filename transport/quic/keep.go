package quic

import (
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

// When a QUIC connection ends, what has arrived on its streams and was not read
// is gone. So the streams take it over before this side lets a connection go.

// keepGrace is how long a stream is asked for what it has, and keepTries how often:
// what is there comes at once, but on a busy machine the time may be over before
// this process has asked.
const (
	keepGrace = 100 * time.Millisecond
	keepTries = 3
)

// keep takes over what has arrived.
func (s *stream) keep() {
	s.mu.Lock()
	s.expect()
	s.mu.Unlock()
	s.reading.Lock() // a Read that waits has woken up by then
	defer s.reading.Unlock()
	s.takeOver()
}

// expect makes reads from QUIC fail when nothing more will come.
func (s *stream) expect() {
	until := time.Now().Add(keepGrace)
	if s.mux.keepUntil.After(until) {
		until = s.mux.keepUntil
	}
	_ = s.q.SetReadDeadline(until) // never fails
}

// takeOver moves what has arrived from QUIC's buffers to rest: no more than the
// stream's window, which a peer could exceed that sends on after its goodbye. It is
// called with reading held.
func (s *stream) takeOver() {
	if s.kept {
		return
	}
	s.kept = true
	const room = 512 // for a start: most streams have nothing
	for tries := 0; s.restErr == nil; {
		s.rest = slices.Grow(s.rest, max(room, len(s.rest)))
		s.expect()
		n, err := s.q.Read(s.rest[len(s.rest):cap(s.rest)])
		s.rest = s.rest[:len(s.rest)+n]
		switch {
		case err == io.EOF:
			s.restErr = io.EOF
		case err == nil && len(s.rest) <= s.mux.window+freshWindow && s.mux.keepable.Add(-int64(n)) >= 0:
		case errors.Is(err, os.ErrDeadlineExceeded):
			if tries++; tries == keepTries {
				s.restErr = s.mux.ended()
			}
		case err == nil: // more than it may
			s.restErr = s.mux.ended()
		default:
			s.restErr = s.translate(err)
		}
	}
}

// readKept is Read from what was taken over.
func (s *stream) readKept(p []byte) (int, error) {
	if len(s.rest) == 0 && len(p) > 0 {
		return 0, s.restErr
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	if len(s.rest) == 0 {
		s.rest = nil
	}
	return n, nil
}
