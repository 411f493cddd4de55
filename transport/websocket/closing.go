package websocket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/outgate/outgate/transport"
)

// The WebSocket status of a close frame is closeBase plus the code, out of the
// range that is free for applications (RFC 6455, section 7.4.2). A code that
// does not fit there precedes the reason of status closeAny, as in "4242: bye".
const (
	closeBase = 4000
	closeAny  = 4999
)

// closeFrame is how a cause goes over the wire.
func closeFrame(e *transport.CloseError) (websocket.StatusCode, string) {
	if e.Code < closeAny-closeBase {
		return closeBase + websocket.StatusCode(e.Code), cleanReason(e.Reason)
	}
	return closeAny, cleanReason(fmt.Sprintf("%d: %s", uint32(e.Code), e.Reason))
}

// protocolError is what ends a connection whose peer broke the protocol.
func protocolError(err error) *transport.CloseError {
	return &transport.CloseError{Code: transport.Protocol, Reason: cleanReason(err.Error())}
}

// closeCause says why a connection ended, from the error of its carrier.
func closeCause(err error) *transport.CloseError {
	if cause, ok := errors.AsType[*transport.CloseError](err); ok {
		return cause
	}
	if frame, ok := errors.AsType[websocket.CloseError](err); ok {
		return remoteClose(frame)
	}
	lost := &transport.CloseError{Code: transport.ConnectionLost, Remote: true}
	if broken, ok := errors.AsType[*net.OpError](err); ok {
		lost.Reason = cleanReason(broken.Err.Error())
		return lost
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return lost
	}
	switch {
	case errors.Is(err, io.EOF),
		errors.Is(err, io.ErrUnexpectedEOF),
		errors.Is(err, net.ErrClosed),
		errors.Is(err, io.ErrClosedPipe),
		errors.Is(err, context.Canceled):
		return lost
	}
	return protocolError(err) // the peer does not speak WebSocket
}

// remoteClose says what the peer, or a proxy between, meant with a close frame.
func remoteClose(frame websocket.CloseError) *transport.CloseError {
	e := &transport.CloseError{Code: transport.ConnectionLost, Remote: true}
	switch {
	case frame.Code >= closeBase && frame.Code < closeAny:
		e.Code = transport.Code(frame.Code - closeBase)
		e.Reason = cleanReason(frame.Reason)
		return e
	case frame.Code == closeAny:
		code, reason, _ := strings.Cut(frame.Reason, ": ")
		n, err := strconv.ParseUint(code, 10, 32)
		if err != nil {
			return protocolError(errors.New("a close frame without its code"))
		}
		e.Code, e.Reason = transport.Code(n), cleanReason(reason)
		return e
	case frame.Code == websocket.StatusProtocolError,
		frame.Code == websocket.StatusUnsupportedData,
		frame.Code == websocket.StatusInvalidFramePayloadData,
		frame.Code == websocket.StatusMessageTooBig:
		e.Code = transport.Protocol
	}
	e.Reason = statusReason(frame)
	return e
}

// statusReason tells of a close frame that does not come from the peer, as it seems.
func statusReason(frame websocket.CloseError) string {
	return cleanReason(fmt.Sprintf("WebSocket closed with status %d %s", frame.Code, frame.Reason))
}

// cleanReason makes a text that came from anywhere fit for a close frame and a
// log: at most 120 bytes of printable UTF-8.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*maxCloseReason)])
	for len(s) > maxCloseReason {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
