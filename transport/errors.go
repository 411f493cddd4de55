package transport

import (
	"fmt"
	"net"
	"os"
)

// StreamError says that a stream was reset. It matches its [Code] with
// errors.Is, and os.ErrDeadlineExceeded when the code is [Timeout].
type StreamError struct {
	Code   Code
	Remote bool // the peer ended the stream, not this side
}

var (
	_ net.Error = (*StreamError)(nil)
	_ net.Error = (*CloseError)(nil)
)

func (e *StreamError) Error() string {
	return fmt.Sprintf("stream reset by %s: %s", side(e.Remote), e.Code)
}

// Is reports whether target is the code of e, or another StreamError that is
// equal to e.
func (e *StreamError) Is(target error) bool {
	switch t := target.(type) {
	case Code:
		return t == e.Code
	case *StreamError:
		return *t == *e
	}
	return target == os.ErrDeadlineExceeded && e.Code == Timeout
}

// Timeout reports whether the stream ended because of a time limit.
func (e *StreamError) Timeout() bool { return e.Code == Timeout }

// Temporary is always false: a stream that was reset stays so. (net.Error)
func (e *StreamError) Temporary() bool { return false }

// CloseError says that a connection ended, and with it all its streams. It
// matches its [Code] and net.ErrClosed with errors.Is.
type CloseError struct {
	Code   Code
	Reason string // from the side that closed; for people, never for decisions
	Remote bool   // the peer closed, or the carrier broke; not this side
}

func (e *CloseError) Error() string {
	s := fmt.Sprintf("connection closed by %s: %s", side(e.Remote), e.Code)
	if e.Code == ConnectionLost {
		s = e.Code.String()
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// Is reports whether target is the code of e.
func (e *CloseError) Is(target error) bool {
	c, ok := target.(Code)
	return ok && c == e.Code
}

// Unwrap returns net.ErrClosed.
func (e *CloseError) Unwrap() error { return net.ErrClosed }

// Timeout reports whether the connection ended because the peer fell silent.
func (e *CloseError) Timeout() bool { return e.Code == Timeout }

// Temporary is always false: a closed connection stays so. (net.Error)
func (e *CloseError) Temporary() bool { return false }

func side(remote bool) string {
	if remote {
		return "peer"
	}
	return "this side"
}
