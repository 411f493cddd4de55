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
	"strings"
	"time"

	"github.com/outgate/outgate/transport"
)

// ProxyError says that the way to a gateway ended at the proxy: it could not be
// reached, did not answer, or refused. A refusal of an HTTP proxy has a
// *[HandshakeError] below, so that errors.Is tells transport.Denied and
// transport.Overloaded. The text never has the credentials of the proxy.
type ProxyError struct {
	Proxy string // scheme://host:port
	Err   error
}

func (e *ProxyError) Error() string { return fmt.Sprintf("proxy %s: %v", e.Proxy, e.Err) }

// Unwrap returns Err.
func (e *ProxyError) Unwrap() error { return e.Err }

// OnTheWay is true: it was not the gateway that refused, so an agent tries its other
// transports.
func (e *ProxyError) OnTheWay() bool { return true }

// chooseProxy asks for the proxy on the way to target.
func chooseProxy(choose func(*http.Request) (*url.URL, error), target *url.URL) (*url.URL, error) {
	if choose == nil {
		return nil, nil
	}
	proxy, err := choose(&http.Request{Method: http.MethodGet, URL: target, Host: target.Host, Header: http.Header{}})
	if err != nil {
		// Its text may quote the URL with the password.
		return nil, errors.New("websocket: Dialer.Proxy failed (its error may hold a password, so it is not repeated here): " +
			"check HTTPS_PROXY, which is like http://user:password@host:port, with % escapes for characters that mean something in a URL")
	}
	if proxy == nil {
		return nil, nil
	}
	proxy = &url.URL{Scheme: proxy.Scheme, User: proxy.User, Host: proxy.Host}
	port, known := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}[proxy.Scheme]
	switch {
	case !known:
		return nil, fmt.Errorf("websocket: Dialer.Proxy returned a URL with the scheme %q: use http, https or socks5", proxy.Scheme)
	case proxy.Hostname() == "":
		return nil, errors.New("websocket: Dialer.Proxy returned a URL without a host")
	case proxy.Port() == "":
		proxy.Host = net.JoinHostPort(proxy.Hostname(), port)
	}
	return proxy, nil
}

// plainProxy is proxy for an http.Transport, which would do the TLS with an https
// proxy as if it were the gateway, with the certificate of the agent.
func plainProxy(proxy *url.URL) func(*http.Request) (*url.URL, error) {
	if proxy == nil {
		return nil
	}
	plain := *proxy
	if plain.Scheme == "https" {
		plain.Scheme = "http"
	}
	return http.ProxyURL(&plain)
}

// dialThrough returns what dials the gateway, or the proxy with TLS if it wants it.
func dialThrough(dial netDial, proxy *url.URL, c *tls.Config) netDial {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	if proxy == nil || proxy.Scheme != "https" {
		return dial
	}
	if c == nil {
		c = &tls.Config{}
	}
	c = clientTLS(c, http1)
	if c.ServerName == "" {
		c.ServerName = proxy.Hostname()
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		secure := tls.Client(conn, c)
		if err := secure.HandshakeContext(ctx); err != nil {
			_ = conn.Close()
			return nil, err
		}
		return abrupt{secure}, nil
	}
}

// abrupt closes without a goodbye, which could wait for a peer that takes no data.
type abrupt struct{ *tls.Conn }

func (c abrupt) Close() error { return c.NetConn().Close() }

const putPassword = "put the right user and password into the URL of the proxy, as in http://user:password@host:port"

// proxyAnswer types the error of a proxy that refuses CONNECT.
func proxyAnswer(_ context.Context, _ *url.URL, connect *http.Request, r *http.Response) error {
	e := &HandshakeError{Status: r.StatusCode, RetryAfter: retryAfter(r.Header, time.Now())}
	switch r.StatusCode {
	case http.StatusOK:
		return nil
	case http.StatusProxyAuthRequired, http.StatusUnauthorized:
		e.Reason = putPassword
	case http.StatusForbidden, http.StatusMethodNotAllowed:
		e.Reason = "allow CONNECT to " + connect.Host + " in the proxy"
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		e.Reason = "the proxy does not reach " + connect.Host
	}
	return e
}

// blameProxy makes a ProxyError of an error from before the TLS with the gateway.
func blameProxy(proxy *url.URL, err error) error {
	var refused *HandshakeError
	var network net.Error
	var untrusted *tls.CertificateVerificationError
	var plain tls.RecordHeaderError
	switch {
	case errors.As(err, &refused):
		err = refused
	case errors.As(err, &untrusted):
		err = fmt.Errorf("%w (Dialer.ProxyTLS says whom to trust)", untrusted)
	case errors.As(err, &plain):
		err = errors.New("it does not speak TLS: is its URL http:// instead of https://?")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it closed the connection instead of an answer: does it speak " + proxy.Scheme + ", and may this host use it?")
	case errors.Is(err, transport.Timeout):
		err = fmt.Errorf("%w; it has not answered: does it speak %s?", err, proxy.Scheme)
	case errors.As(err, &network) && strings.Contains(err.Error(), "authentication"): // in the words of net/http's SOCKS5
		err = fmt.Errorf("%w (%w): %s", err, transport.Denied, putPassword)
	case errors.As(err, &network), errors.Is(err, context.Canceled):
	default:
		// The text would quote what the proxy sent, which may be what it was sent.
		err = errors.New("its answer is none of a proxy: does it speak " + proxy.Scheme + "?")
	}
	return &ProxyError{Proxy: proxy.Scheme + "://" + proxy.Host, Err: err}
}
