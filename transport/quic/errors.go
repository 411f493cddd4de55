package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"net"
	"os"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

// Stream codes on the wire are transport codes, as they are. Above them are the
// codes of streams that end because their connection does: their readers and
// writers see the connection's error.
const connectionEnds quic.StreamErrorCode = 1 << 32

// codeOf returns the transport code of a number that came from the peer.
func codeOf(n uint64) transport.Code {
	if n > math.MaxUint32 {
		return transport.Protocol
	}
	return transport.Code(n)
}

// closeError translates what ended a QUIC connection.
func closeError(err error) *transport.CloseError {
	var (
		application *quic.ApplicationError
		protocol    *quic.TransportError
		idle        *quic.IdleTimeoutError
	)
	switch {
	case errors.As(err, &application):
		return &transport.CloseError{
			Code:   codeOf(uint64(application.ErrorCode)),
			Reason: cutReason(application.ErrorMessage),
			Remote: application.Remote,
		}
	case errors.As(err, &protocol):
		code := transport.Protocol
		switch protocol.ErrorCode {
		case quic.InternalError:
			code = transport.Internal
		case quic.ConnectionRefused:
			code = transport.Refused
		case quic.NoError, quic.ApplicationErrorErrorCode, quic.NoViablePathError:
			code = transport.ConnectionLost
		default: // the peer broke the protocol, or says that this side did
		}
		return &transport.CloseError{Code: code, Reason: cutReason(protocol.Error()), Remote: protocol.Remote}
	case errors.As(err, &idle):
		return &transport.CloseError{Code: transport.Timeout, Reason: whySilent, Remote: true}
	}
	return &transport.CloseError{Code: transport.ConnectionLost, Reason: cutReason(err.Error()), Remote: true}
}

// DialError says why a [Dialer] could not connect, and what to do about it. It
// matches its Code and what Err matches with errors.Is. The codes:
//
//	Denied          one side does not accept the other's certificate
//	Revoked         the gateway says that the agent's certificate is revoked
//	Protocol        the other end speaks something else
//	Timeout         no answer over UDP, or the context of Dial ran out
//	Canceled        the context of Dial was canceled
//	NameNotFound    the gateway's name does not resolve
//	Unreachable     the network refuses to send there
//	Overloaded      the gateway has no room, or is shutting down; try later
//	Draining        the gateway is shutting down; try another
//	ConnectionLost  anything else
type DialError struct {
	Gateway string // as it was passed to Dial
	Code    transport.Code
	Remote  bool  // the gateway said so, not this side
	Err     error // the cause

	fix string
}

var _ net.Error = (*DialError)(nil)

func (e *DialError) Error() string {
	s := fmt.Sprintf("quic: dial %s: %v", e.Gateway, e.Err)
	if e.fix != "" {
		s += "; " + e.fix
	}
	return s
}

// Unwrap returns the cause.
func (e *DialError) Unwrap() error { return e.Err }

// Is reports whether target is the code of e.
func (e *DialError) Is(target error) bool {
	code, ok := target.(transport.Code)
	return ok && code == e.Code || target == os.ErrDeadlineExceeded && e.Code == transport.Timeout
}

// Timeout reports whether there was no answer in time.
func (e *DialError) Timeout() bool { return e.Code == transport.Timeout }

// Temporary is always false: it says nothing that Code does not. (net.Error)
func (e *DialError) Temporary() bool { return false }

const (
	fixSilence = "check that the gateway listens on this UDP port and that no firewall drops UDP, or use the WebSocket transport"
	fixAgent   = "enrol the agent again, or check that the gateway's ClientCAs hold the authority that signed its certificate"
	fixGateway = "check the host in the URL and RootCAs"
	fixVersion = "check that the port is an outgate gateway and that both sides have compatible versions"
	fixLater   = "try again later"
)

// dialError explains why a dial failed. ctx is that of the caller of Dial.
func dialError(ctx context.Context, gateway string, err error) *DialError {
	e := &DialError{Gateway: gateway, Code: transport.ConnectionLost, Err: err}
	if ctx.Err() != nil {
		e.Code, e.Err = transport.Canceled, context.Cause(ctx)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			e.Code, e.fix = transport.Timeout, fixSilence
		}
		return e
	}
	var (
		application *quic.ApplicationError
		handshake   *quic.TransportError
		version     *quic.VersionNegotiationError
		broken      protocolError
		dns         *net.DNSError
		timeout     net.Error
		op          *net.OpError
	)
	switch {
	case errors.As(err, &application):
		ended := closeError(err)
		e.Code, e.Remote, e.Err, e.fix = ended.Code, ended.Remote, ended, fixLater
	case errors.As(err, &handshake):
		explainHandshake(e, handshake)
	case errors.As(err, &version):
		e.Code, e.Err, e.fix = transport.Protocol, errors.New(version.Error()), fixVersion
	case errors.As(err, &broken):
		e.Code, e.fix = transport.Protocol, fixVersion
	case errors.As(err, &dns):
		e.Code, e.fix = transport.Unreachable, "check the resolver of this machine"
		if dns.IsNotFound {
			e.Code, e.fix = transport.NameNotFound, "check the host in the URL"
		}
	case errors.As(err, &timeout) && timeout.Timeout(), errors.Is(err, context.DeadlineExceeded):
		e.Code, e.Err, e.fix = transport.Timeout, errors.New("no answer in time"), fixSilence
	case errors.As(err, &op):
		e.Code, e.fix = transport.Unreachable, "check the network of this machine"
	}
	return e
}

// explainHandshake reads a failed TLS or QUIC handshake. The alerts are those of
// RFC 8446, section 6.
func explainHandshake(e *DialError, t *quic.TransportError) {
	e.Remote, e.Err = t.Remote, causeOf(t)
	if t.ErrorCode == quic.ConnectionRefused {
		e.Code, e.fix = transport.Overloaded, fixLater
		return
	}
	e.Code, e.fix = transport.Protocol, fixVersion
	if t.ErrorCode < 0x100 || t.ErrorCode > 0x1ff { // RFC 9001, section 4.8
		return
	}
	switch alert := tls.AlertError(t.ErrorCode - 0x100); alert {
	case 42, 43, 45, 46, 48, 49, 116: // what is wrong with a certificate, or that there is none
		e.Code, e.fix = transport.Denied, fixAgent
	case 44: // certificate revoked
		e.Code, e.fix = transport.Revoked, fixAgent
	}
	if !t.Remote && e.Code == transport.Denied {
		e.fix = fixGateway
	}
}

// causeOf returns what stands behind t without net.ErrClosed, which t always
// matches: a dial that failed is not something closed.
func causeOf(t *quic.TransportError) error {
	for _, err := range t.Unwrap() {
		if err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
	}
	if t.ErrorCode >= 0x100 && t.ErrorCode <= 0x1ff {
		return tls.AlertError(t.ErrorCode - 0x100)
	}
	return errors.New(t.Error())
}
