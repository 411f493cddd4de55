package mux

import (
	"errors"
	"io"
	"os"

	"github.com/outgate/outgate/transport"
)

// Read implements net.Conn.
func (s *Stream) Read(p []byte) (n int, err error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	piece, err := s.unread(len(p) > 0)
	for len(piece) > 0 {
		k := copy(p[n:], piece)
		n += k
		piece = s.consume(k, n < len(p))
	}
	return n, err
}

// WriteTo implements io.WriterTo. It returns nil at io.EOF.
func (s *Stream) WriteTo(w io.Writer) (total int64, err error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for {
		piece, err := s.unread(true)
		if len(piece) == 0 {
			if err == io.EOF {
				err = nil
			}
			return total, err
		}
		n, err := w.Write(piece)
		s.consume(n, false)
		total += int64(n)
		if err == nil && n < len(piece) {
			err = io.ErrShortWrite
		}
		if err != nil {
			return total, err
		}
	}
}

// unread waits for data and returns what can be read in one piece, to be
// consumed, or why there will be nothing. Who wants nothing does not wait.
func (s *Stream) unread(want bool) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for announced := false; ; {
		if err := s.unreadable(); err != nil || !want {
			return nil, err
		}
		if piece := s.in.unread(); piece != nil {
			return piece, nil
		}
		if s.in.complete() {
			return nil, io.EOF
		}
		if cause := s.m.ended(); cause != nil {
			return nil, cause
		}
		if !announced {
			// The peer may not know of the stream yet.
			announced = true
			s.mu.Unlock()
			s.m.sender.flush()
			s.mu.Lock()
			continue
		}
		s.reader.wait()
	}
}

// unreadable returns what ends a Read whether or not there is data.
func (s *Stream) unreadable() error {
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case s.reader.expired():
		return os.ErrDeadlineExceeded
	}
	return nil
}

// consume gives n bytes of what unread returned back to the peer's credit. If
// more is wanted it returns the next piece that is there.
func (s *Stream) consume(n int, more bool) (next []byte) {
	s.mu.Lock()
	s.in.consume(n)
	tell := false
	if !s.released {
		var limit uint64
		if limit, tell = s.in.raise(s.m); tell {
			s.m.sender.credit(s, limit)
		}
	}
	if more && s.unreadable() == nil {
		next = s.in.unread()
	}
	s.mu.Unlock()
	if tell {
		s.m.sender.flush()
	}
	return next
}

// The rest is called by the receiver, for what the peer sent.

// space checks a DATA frame and returns memory for the first of its n bytes, or
// nil if the stream takes none any more.
func (s *Stream) space(n int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil, nil
	}
	if err := s.in.arrives(n); err != nil {
		return nil, err
	}
	if s.in.dropped { // reset by the peer, whose DATA may come later
		s.in.received += uint64(n)
		return nil, nil
	}
	return s.in.space(n), nil
}

// filled hands n bytes in the memory of space to the reader. It returns true when
// the peer is about to use up the credit of a new stream, and should learn of the
// rest.
func (s *Stream) filled(n int) (flush bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.in.received
	s.in.filled(n)
	s.reader.cond.Broadcast()
	return before < leastWindow/2 && s.in.received >= leastWindow/2
}

func (s *Stream) isReleased() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.released
}

// ends records that total bytes were all.
func (s *Stream) ends(total uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil // what had arrived was not counted any more
	}
	s.reader.cond.Broadcast()
	return s.in.end(total)
}

// wasReset ends both directions.
func (s *Stream) wasReset(code transport.Code) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.released {
		return nil
	}
	if s.failed != nil {
		return errors.New("a second RESET")
	}
	s.failed = &transport.StreamError{Code: code, Remote: true}
	s.m.sender.wasReset(s, s.failed)
	s.in.drop()
	s.reader.cond.Broadcast()
	return nil
}
