package transport

import "strconv"

// Code says why a stream or a connection ended. Codes travel on every carrier
// as they are; the list only grows at its end. A code is itself an error, so
// that errors.Is(err, transport.Denied) answers the usual question.
type Code uint32

const (
	NoError        Code = iota // ended as planned
	Internal                   // a fault of the side that sent it; its log says more
	Protocol                   // the other side broke the protocol
	Canceled                   // the side that sent it no longer wants the rest
	Denied                     // a policy said no
	Unreachable                // no route to the target
	Refused                    // the target refused the connection
	Timeout                    // no answer in time
	NameNotFound               // the target's name does not resolve
	UnknownService             // nobody serves this service there
	Overloaded                 // a limit was reached; try later
	Draining                   // this side is shutting down; use another connection
	Duplicate                  // another connection of the same identity took its place
	Revoked                    // the identity is no longer valid
	Truncated                  // the stream ended without its end mark: the data is incomplete
	ConnectionLost             // the carrier broke without a close code
	NotConnected               // the agent has no connection here
	TargetReset                // the target broke its connection to the agent
)

var codeNames = [...]string{
	NoError:        "no error",
	Internal:       "internal error",
	Protocol:       "protocol violation",
	Canceled:       "canceled",
	Denied:         "denied by policy",
	Unreachable:    "unreachable",
	Refused:        "connection refused",
	Timeout:        "timed out",
	NameNotFound:   "no such host",
	UnknownService: "unknown service",
	Overloaded:     "overloaded",
	Draining:       "draining",
	Duplicate:      "replaced by another connection",
	Revoked:        "revoked",
	Truncated:      "truncated",
	ConnectionLost: "connection lost",
	NotConnected:   "agent not connected",
	TargetReset:    "connection reset by target",
}

// String names the code; an unknown one, from a newer peer, by its number.
func (c Code) String() string {
	if int64(c) < int64(len(codeNames)) {
		return codeNames[c]
	}
	return "code " + strconv.FormatUint(uint64(c), 10)
}

// Error makes a Code usable as the target of errors.Is.
func (c Code) Error() string { return c.String() }
