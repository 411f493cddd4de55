package websocket

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/outgate/outgate/transport"
)

// HandshakeError says that a gateway, or a proxy before it, answered the request
// for a tunnel with something else. It matches transport.Denied and
// transport.Overloaded with errors.Is where the status means that.
type HandshakeError struct {
	Status     int           // of HTTP
	RetryAfter time.Duration // how long the answer asks to wait; 0 if it does not say
	Reason     string        // the start of the answer's text; for people
}

func (e *HandshakeError) Error() string {
	s := "the tunnel was answered with status " + strconv.Itoa(e.Status)
	if text := http.StatusText(e.Status); text != "" {
		s += " " + text
	}
	if e.Reason != "" {
		s += ": " + e.Reason
	}
	return s
}

// RetryDelay is RetryAfter: an agent that meets this error waits at least as long.
func (e *HandshakeError) RetryDelay() time.Duration { return e.RetryAfter }

// OnTheWay reports whether something before the gateway may have answered, so that
// an agent tries its other transports. A gateway that is busy says so itself.
func (e *HandshakeError) OnTheWay() bool { return !e.Is(transport.Overloaded) }

// Is reports whether target is what the status means.
func (e *HandshakeError) Is(target error) bool {
	switch e.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return target == transport.Denied
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return target == transport.Overloaded
	}
	return false
}

// retryAfter reads the header field of RFC 9110, section 10.2.3. What it cannot
// read is 0.
func retryAfter(h http.Header, now time.Time) time.Duration {
	v := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(v, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second
	}
	if at, err := http.ParseTime(v); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// refusal is the answer to a request that cannot become a tunnel. An agent shows
// maxCloseReason bytes of the reason.
type refusal struct {
	status int
	reason string
}

// admit checks what the WebSocket library does not.
func (l *Listener) admit(r *http.Request) *refusal {
	inner := l.innerTLS != nil
	switch {
	case r.Header["Origin"] != nil || r.Header["Cookie"] != nil:
		return &refusal{http.StatusForbidden, "the tunnel is not for browsers: send neither Origin nor Cookie"}
	case inner && offered(r.Header, protocols(false)) && !offered(r.Header, protocols(true)):
		return &refusal{http.StatusForbidden, "this gateway wants the mutual TLS inside the WebSocket: set Dialer.OuterTLS at the agent"}
	case !inner && offered(r.Header, protocols(true)) && !offered(r.Header, protocols(false)):
		return &refusal{http.StatusForbidden, "this gateway takes no TLS inside the WebSocket: unset Dialer.OuterTLS, or set Config.InnerTLS at the gateway"}
	case inner && r.TLS == nil && !l.cfg.AllowPlainHTTP:
		return &refusal{http.StatusForbidden, "the request came without TLS: if a load balancer ends it, set Config.AllowPlainHTTP at the gateway"}
	}
	if !inner {
		if no := admitAgent(r.TLS); no != nil {
			return no
		}
	}
	if speaks := l.cfg.protocols(inner); !offered(r.Header, speaks) {
		return &refusal{http.StatusBadRequest, "the tunnel needs the WebSocket subprotocol " + strings.Join(subprotocols(speaks), " or ")}
	}
	return nil
}

// admitAgent checks the mutual TLS with an agent.
func admitAgent(state *tls.ConnectionState) *refusal {
	switch {
	case state == nil:
		return &refusal{http.StatusForbidden, "TLS ends before the gateway: set Dialer.OuterTLS at the agent and Config.InnerTLS at the gateway"}
	case state.Version < tls.VersionTLS13:
		return &refusal{http.StatusForbidden, "the tunnel needs TLS 1.3"}
	case len(state.VerifiedChains) == 0:
		return &refusal{http.StatusForbidden, "the tunnel needs a client certificate; if TLS ends in a load balancer, set Dialer.OuterTLS and Config.InnerTLS"}
	case state.DidResume:
		// A ticket could outlive the certificate or its revocation.
		return &refusal{http.StatusForbidden, "the tunnel needs a full TLS handshake: disable session tickets"}
	}
	return nil
}

// reserved are the header fields that a Dialer sets itself or a Listener refuses.
var reserved = [...]string{
	"Connection", "Cookie", "Host", "Origin", "Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Extensions",
	"Sec-Websocket-Key", "Sec-Websocket-Protocol", "Sec-Websocket-Version",
}

// checkHeader refuses fields in Dialer.Header that would break the handshake.
func checkHeader(h http.Header) error {
	for _, name := range reserved {
		for key := range h {
			if http.CanonicalHeaderKey(key) == name {
				return fmt.Errorf("websocket: remove the header field %s from Dialer.Header: it belongs to the handshake", name)
			}
		}
	}
	return nil
}
