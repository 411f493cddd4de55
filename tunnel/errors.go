package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

var (
	// ErrNotConnected says that no connection of the agent is here. An HTTP
	// handler should answer 503.
	ErrNotConnected = errors.New("agent not connected")

	// ErrGatewayClosed is what [Gateway.Serve] returns after Shutdown or Close.
	ErrGatewayClosed = errors.New("tunnel: gateway closed")

	// ErrAgentClosed is what [Agent.Run] returns after Shutdown.
	ErrAgentClosed = errors.New("tunnel: agent closed")
)

// OpenError says why a stream to a target could not be opened. Nothing of the
// session is harmed by it: other streams go on.
//
// It matches its Code with errors.Is, unwraps to Err, and matches
// [ErrNotConnected] when the agent is not connected and os.ErrDeadlineExceeded
// when time ran out.
type OpenError struct {
	Agent  string // the agent asked; the empty string when the agent asked the gateway
	Target Target
	Code   transport.Code
	Reason string // for people; from the other side when Remote is set
	Remote bool   // the other side answered; otherwise the question did not reach it or no answer came
	Err    error  // the cause on this side; may be nil
}

var _ net.Error = (*OpenError)(nil)

func (e *OpenError) Error() string {
	peer := "gateway"
	if e.Agent != "" {
		peer = "agent " + e.Agent
	}
	s := fmt.Sprintf("tunnel: open %s through %s: %s", wire.PrintableReason(e.Target.String()), peer, e.Code)
	switch {
	case e.Reason != "":
		s += ": " + e.Reason
	case e.Err != nil && !errors.Is(e.Err, e.Code):
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause on this side, if any.
func (e *OpenError) Unwrap() error { return e.Err }

// Is reports whether target is the code of e, or a standard error that means the
// same.
func (e *OpenError) Is(target error) bool {
	switch target {
	case ErrNotConnected:
		return e.Code == transport.NotConnected
	case os.ErrDeadlineExceeded, context.DeadlineExceeded:
		return e.Code == transport.Timeout
	}
	c, ok := target.(transport.Code)
	return ok && c == e.Code
}

// Timeout reports whether no answer came in time. (net.Error)
func (e *OpenError) Timeout() bool { return e.Code == transport.Timeout }

// Temporary reports whether the same call may succeed a little later. (net.Error)
func (e *OpenError) Temporary() bool {
	switch e.Code {
	case transport.NotConnected, transport.ConnectionLost, transport.Overloaded, transport.Draining:
		return true
	default:
		return false
	}
}
