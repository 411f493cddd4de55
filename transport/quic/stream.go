package quic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

var (
	errStreamClosed = fmt.Errorf("quic: stream: %w", net.ErrClosed)
	errWriteClosed  = fmt.Errorf("quic: write after CloseWrite: %w", net.ErrClosed)
)

const canceled = quic.StreamErrorCode(transport.Canceled)

// stream is a bidirectional QUIC stream as a transport.Stream.
type stream struct {
	q   *quic.Stream
	mux *mux

	reading sync.Mutex // held by Read, also while it waits
	kept    bool       // what had arrived is in rest, then comes restErr
	rest    []byte
	restErr error

	mu         sync.Mutex
	err        error     // how this side ended the stream, with Close or Reset
	peerReset  error     // how the peer ended it
	writers    int       // calls of Write under way
	closeWrite bool      // this direction ends, or will when the writers are done
	sentEnd    bool      // it has ended
	known      bool      // the peer can know of the stream
	writeBy    time.Time // the deadline of Write
}

var _ transport.Stream = (*stream)(nil)

// Read reads what the peer wrote.
func (s *stream) Read(p []byte) (int, error) {
	if err := s.local(); err != nil {
		return 0, err
	}
	s.reading.Lock()
	defer s.reading.Unlock()
	if !s.kept {
		n, err := s.q.Read(p)
		switch {
		case err == nil, n > 0: // an error stays for the next call
			return n, nil
		case !s.mux.keeping.Load() || !errors.Is(err, os.ErrDeadlineExceeded):
			return 0, s.readError(err)
		}
		s.takeOver() // it was not the deadline of the user
	}
	return s.readKept(p)
}

func (s *stream) readError(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return s.deadline()
	}
	if err == io.EOF {
		return io.EOF
	}
	err = s.translate(err)
	if _, reset := errors.AsType[*transport.StreamError](err); reset {
		// A reset ends both directions. The half that ends this one may arrive later.
		s.mu.Lock()
		s.peerReset = err
		s.mu.Unlock()
	}
	return err
}

// Write writes to the peer. It returns when p is on its way, or as good as that:
// the peer has room for all of it.
func (s *stream) Write(p []byte) (int, error) {
	late, err := s.beginWrite()
	if err != nil {
		return 0, err
	}
	n, err := s.write(p, late)
	return n, s.endWrite(err)
}

// smallWrite is what the QUIC implementation may take without sending it.
const smallWrite = 1200

// write hands p over. The Write of the QUIC implementation would also take a last
// packet that the peer has no room for. A closing connection resets the stream
// behind what it took, and the peer would call that an overrun.
func (s *stream) write(p []byte, late bool) (int, error) {
	if len(p) <= smallWrite && !late {
		err := s.q.TryWriteAll(p)
		if err == nil {
			return len(p), nil
		}
		if !errors.Is(err, quic.ErrWouldBlock) {
			return 0, err
		}
	}
	return s.q.WriteWithLimit(p, unlimited)
}

// unlimited lets flow control alone limit a Write.
func unlimited(n int) int { return n }

// beginWrite reports whether the deadline of the Write has passed already.
func (s *stream) beginWrite() (late bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return false, s.err
	case s.mux.ended() != nil:
		return false, s.mux.ended()
	case s.closeWrite:
		return false, errWriteClosed
	case s.peerReset != nil:
		return false, s.peerReset
	}
	s.writers++
	s.known = true
	return !s.writeBy.IsZero() && !time.Now().Before(s.writeBy), nil
}

func (s *stream) endWrite(err error) error {
	if err != nil {
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = s.deadline()
		} else {
			err = s.translate(err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writers--
	if s.err != nil {
		return s.err // the bytes may be lost, even if they were accepted
	}
	if s.closeWrite && s.writers == 0 && !s.sentEnd {
		if err != nil {
			s.q.CancelWrite(canceled) // the data is not complete
		} else {
			_ = s.q.Close() // the reset that it may report is known to the reader
		}
		s.sentEnd = true
	}
	return err
}

// CloseWrite ends this side's direction. If a Write is under way, the end
// follows when it is done; if that Write fails, the peer reads a *StreamError
// instead of io.EOF.
func (s *stream) CloseWrite() error {
	if err := s.sendEnd(); !errors.Is(err, errNotTaken) {
		return err
	}
	return s.translate(context.Cause(s.q.Context()))
}

// errNotTaken says that the peer has refused the direction that was to end.
var errNotTaken = errors.New("quic: the peer stopped reading")

func (s *stream) sendEnd() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return s.err
	case s.closeWrite:
		return nil
	case s.mux.ended() != nil:
		return s.mux.ended()
	}
	s.closeWrite, s.known = true, true
	if s.writers > 0 {
		return nil // endWrite does the rest
	}
	s.sentEnd = true
	if s.q.Close() != nil {
		return errNotTaken
	}
	return nil
}

// Close ends this side's direction and stops reading.
func (s *stream) Close() error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil //nolint:nilerr // it has ended, which is what was asked for
	}
	s.err = errStreamClosed
	switch {
	case s.writers > 0:
		s.q.CancelWrite(canceled)
	case !s.closeWrite:
		_ = s.q.Close() // reports that the peer does not listen; neither does this side
	}
	s.sentEnd = true
	s.q.CancelRead(canceled)
	s.q.ReleaseStreamCredit()
	s.mu.Unlock()
	s.mux.forget(s)
	return nil
}

// Reset ends both directions at once.
func (s *stream) Reset(code transport.Code) error {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil //nolint:nilerr // it has ended, which is what was asked for
	}
	s.err = &transport.StreamError{Code: code}
	s.sentEnd = true
	s.q.CancelWrite(quic.StreamErrorCode(code))
	s.q.CancelRead(quic.StreamErrorCode(code))
	s.q.ReleaseStreamCredit()
	s.mu.Unlock()
	s.mux.forget(s)
	return nil
}

// abandon ends both directions because the connection ends. What was written
// before still reaches the peer.
func (s *stream) abandon(code quic.StreamErrorCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	if !s.sentEnd {
		s.q.SetReliableBoundary()
		s.q.CancelWrite(code)
		s.sentEnd = true
	}
	s.q.CancelRead(code)
}

// stopWriting ends this side's direction because the peer ends the connection.
func (s *stream) stopWriting(code quic.StreamErrorCode) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.q.CancelWrite(code)
	if !s.known { // then the peer does not end it either
		s.q.CancelRead(code)
	}
}

// local returns how this side ended the stream, or its connection.
func (s *stream) local() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	if e := s.mux.ended(); e != nil && !e.Remote {
		return e
	}
	return nil
}

// deadline is the error of a call that ran out of time, unless something else
// ended it meanwhile.
func (s *stream) deadline() error {
	if err := s.local(); err != nil {
		return err
	}
	return os.ErrDeadlineExceeded
}

// translate returns what an error of the QUIC stream means.
func (s *stream) translate(err error) error {
	if local := s.local(); local != nil {
		return local
	}
	reset, ok := errors.AsType[*quic.StreamError](err)
	if !ok {
		return s.mux.closeError(err)
	}
	if !reset.Remote {
		// Only the end of the connection, or a CloseWrite after a failed Write,
		// resets a stream that its user has not ended.
		if e := s.mux.ended(); e != nil {
			return e
		}
		return errWriteClosed
	}
	return s.peerError(reset)
}

// peerError returns what a reset by the peer means.
func (s *stream) peerError(reset *quic.StreamError) error {
	if reset.ErrorCode >= connectionEnds {
		return s.mux.peerEnds(codeOf(uint64(reset.ErrorCode &^ connectionEnds)))
	}
	return &transport.StreamError{Code: codeOf(uint64(reset.ErrorCode)), Remote: true}
}

// LocalAddr is the address of the connection.
func (s *stream) LocalAddr() net.Addr { return s.mux.LocalAddr() }

// RemoteAddr is the address of the connection's peer.
func (s *stream) RemoteAddr() net.Addr { return s.mux.RemoteAddr() }

// SetDeadline sets both deadlines.
func (s *stream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}

// SetReadDeadline bounds pending and future calls of Read.
func (s *stream) SetReadDeadline(t time.Time) error {
	if err := s.local(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mux.keeping.Load() {
		return nil // Read waits no more
	}
	return s.q.SetReadDeadline(t)
}

// SetWriteDeadline bounds pending and future calls of Write.
func (s *stream) SetWriteDeadline(t time.Time) error {
	if err := s.local(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writeBy = t
	return s.q.SetWriteDeadline(t)
}
