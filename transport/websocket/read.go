package websocket

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/xtaci/smux"

	"github.com/outgate/outgate/transport"
)

// Read implements net.Conn.
func (s *stream) Read(p []byte) (int, error) {
	s.readMu.Lock()
	defer s.readMu.Unlock()
	for {
		if err := s.readable(); err != nil {
			return 0, err
		}
		n, err := s.smux.Read(p)
		if err != nil && n == 0 && !isTimeout(err) {
			// When smux finds its session ended it may say so although there
			// is data; asked again, it looks for data first.
			n, _ = s.smux.Read(p)
		}
		if n > 0 {
			s.consumed(n)
			return n, nil
		}
		if err == nil { // p is empty
			return 0, nil
		}
		if err := s.whyNoData(err); err != nil {
			return 0, err
		}
	}
}

// readable returns what ends a Read whether or not there is data.
func (s *stream) readable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.failed != nil:
		return s.failed
	case past(s.readDeadline):
		return os.ErrDeadlineExceeded
	case s.in.complete():
		return io.EOF
	}
	return nil
}

// whyNoData returns the error of a Read for which smux has only the error err,
// or nil if it is to try again.
func (s *stream) whyNoData(err error) error {
	if why := s.readable(); why != nil || isTimeout(err) {
		return why // a timeout may also be a wake-up or a deadline that moved
	}
	if err := s.m.ended(); err != nil {
		return err
	}
	return &transport.StreamError{Code: transport.Truncated, Remote: true}
}

func isTimeout(err error) bool { return errors.Is(err, smux.ErrTimeout) }

func past(deadline time.Time) bool {
	return !deadline.IsZero() && !time.Now().Before(deadline)
}

// consumed gives n bytes that were read back to the peer's window.
func (s *stream) consumed(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.in.read(n) || s.released {
		return
	}
	if s.in.small(time.Now(), s.m.roundTrip()) {
		s.in.window += s.m.reserve(min(s.in.window, uint64(s.m.cfg.MaxWindow)-s.in.window))
	}
	s.m.sender.window(s, s.in.tell())
}
