package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/outgate/outgate/transport"
)

var _ transport.Dialer = (*Dialer)(nil)

// Dialer connects an agent to gateways. Its fields must not be changed after
// the first Dial; Dial may be called concurrently.
type Dialer struct {
	// TLSClientConfig holds the agent's certificate and the roots of the
	// gateway's. It is required, and copied: the copy demands TLS 1.3 and
	// resumes no sessions.
	TLSClientConfig *tls.Config

	// GetTLSClientConfig, if it is set, is asked at each Dial instead of
	// TLSClientConfig, so that roots which have changed meanwhile are those that
	// count. pki.Identity.ClientTLS is one.
	GetTLSClientConfig func() *tls.Config

	// OuterTLS puts the mutual TLS inside the WebSocket, for a gateway whose
	// Config.InnerTLS is set: the TLS around the WebSocket may then end at a load
	// balancer or an inspecting proxy. OuterTLS is for that one: the zero
	// tls.Config trusts the roots of the system and has no client certificate. It
	// is copied. TLSClientConfig is for the gateway as ever, and its ServerName,
	// if it is empty, the host of the URL. Nil means that the mutual TLS is around
	// the WebSocket.
	OuterTLS *tls.Config

	// Proxy returns the proxy to go through, or nil: an http:// or https:// URL for
	// CONNECT, socks5:// for SOCKS5 (names are resolved by the proxy), with user
	// and password where the proxy wants them. Pass http.ProxyFromEnvironment to
	// honour HTTPS_PROXY and NO_PROXY. Nil means no proxy. The TLS goes through
	// the proxy. What fails at the proxy is a *[ProxyError].
	Proxy func(*http.Request) (*url.URL, error)

	// ProxyTLS is for the TLS with an https:// proxy, and is copied. Nil trusts
	// the roots of the system and has no client certificate.
	ProxyTLS *tls.Config

	// NetDial makes the connection to the gateway or the proxy. Nil means a
	// net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)

	// Header is sent with the request, for what is between agent and gateway.
	// The gateway's identity check does not look at it.
	Header http.Header

	// Config holds the limits.
	Config Config
}

// String names the transport, for people and in the status of an agent.
func (d *Dialer) String() string { return "websocket" }

// Dial implements transport.Dialer. The gateway is an https:// or wss:// URL; a
// path in it is kept in front of [Path]. Redirects are not followed. An answer
// other than a tunnel is a *[HandshakeError]; what fails on the way to the gateway
// because of a proxy is a *[ProxyError].
func (d *Dialer) Dial(ctx context.Context, gateway string) (transport.Mux, error) {
	a, err := d.newAttempt(gateway)
	if err != nil {
		return nil, err
	}
	within := a.cfg.HandshakeTimeout
	ctx, cancel := context.WithTimeoutCause(ctx, within,
		fmt.Errorf("websocket: no tunnel to %s within %v: %w", a.target.Host, within, transport.Timeout))
	defer cancel()
	m, err := a.dial(ctx)
	if err != nil {
		return nil, a.explain(ctx, err)
	}
	return m, nil
}

// newAttempt checks what can be checked before there is a connection.
func (d *Dialer) newAttempt(gateway string) (*attempt, error) {
	target, err := tunnelURL(gateway)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(d.Header); err != nil {
		return nil, err
	}
	inner := d.OuterTLS != nil
	a := &attempt{
		target: target,
		header: d.Header.Clone(),
		speaks: d.Config.protocols(inner),
		cfg:    d.Config.withDefaults(10 * time.Second),
	}
	if a.proxy, err = chooseProxy(d.Proxy, target); err != nil {
		return nil, err
	}
	a.socket.dial = dialThrough(d.NetDial, a.proxy, d.ProxyTLS)
	own := d.TLSClientConfig
	if d.GetTLSClientConfig != nil {
		own = d.GetTLSClientConfig()
	}
	if !inner {
		a.outer, err = agentTLS(own, http1)
		return a, err
	}
	a.outer = clientTLS(d.OuterTLS, http1)
	if a.inner, err = agentTLS(own, subprotocols(a.speaks)...); err == nil && a.inner.ServerName == "" {
		a.inner.ServerName = target.Hostname()
	}
	return a, err
}

// tunnelURL builds the URL of the tunnel from the base URL of a gateway.
func tunnelURL(gateway string) (*url.URL, error) {
	u, err := url.Parse(gateway)
	if err != nil {
		return nil, fmt.Errorf("websocket: gateway URL: %w", err)
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "wss":
		return nil, fmt.Errorf("websocket: gateway URL %q: use https://, the tunnel needs TLS", u.Redacted())
	case u.Hostname() == "":
		return nil, fmt.Errorf("websocket: gateway URL %q has no host", u.Redacted())
	case u.User != nil:
		return nil, fmt.Errorf("websocket: gateway URL %q: remove the user, the certificate is the identity", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("websocket: gateway URL %q: remove the query and the fragment", u.Redacted())
	}
	u.Scheme = "https"
	return u.JoinPath(Path), nil
}

// answer types the error of a request that did not become a WebSocket.
func answer(r *http.Response, err error) error {
	if r == nil || r.StatusCode == http.StatusSwitchingProtocols {
		// What the libraries put around the cause says what Dial says itself.
		if request, ok := errors.AsType[*url.Error](err); ok {
			return request.Err
		}
		return err
	}
	e := &HandshakeError{Status: r.StatusCode, RetryAfter: retryAfter(r.Header, time.Now())}
	if r.StatusCode >= 300 && r.StatusCode < 400 {
		e.Reason = fmt.Sprintf("redirects are not followed; is it the gateway's URL? It points to %.100q", r.Header.Get("Location"))
		return e
	}
	if text, err := io.ReadAll(io.LimitReader(r.Body, 512)); err == nil {
		e.Reason = cleanReason(string(text))
	}
	return e
}
