package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

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

	// Proxy returns the HTTP or SOCKS5 proxy to go through, or nil. Pass
	// http.ProxyFromEnvironment to honour HTTPS_PROXY. Nil means no proxy.
	// The mutual TLS goes through the proxy and ends at the gateway.
	Proxy func(*http.Request) (*url.URL, error)

	// NetDial makes the connection to the gateway or the proxy. Nil means a
	// net.Dialer.
	NetDial func(ctx context.Context, network, address string) (net.Conn, error)

	// Header is sent with the request, for what is between agent and gateway.
	// The gateway's identity check does not look at it.
	Header http.Header

	// Config holds the limits.
	Config Config
}

// Dial implements transport.Dialer. The gateway is an https:// or wss:// URL; a
// path in it is kept in front of [Path]. Redirects are not followed. An answer
// other than a tunnel is a *[HandshakeError].
func (d *Dialer) Dial(ctx context.Context, gateway string) (transport.Mux, error) {
	cfg := d.Config.withDefaults(10 * time.Second)
	target, err := tunnelURL(gateway)
	if err != nil {
		return nil, err
	}
	if err := checkHeader(d.Header); err != nil {
		return nil, err
	}
	tlsConfig, err := d.tlsConfig()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, cfg.HandshakeTimeout,
		fmt.Errorf("websocket: no tunnel to %s within %v: %w", target.Host, cfg.HandshakeTimeout, transport.Timeout))
	defer cancel()
	m, err := d.dial(ctx, target, tlsConfig, cfg)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("websocket: dial %s: %w", target.Host, err)
	}
	return m, nil
}

func (d *Dialer) dial(ctx context.Context, target *url.URL, tlsConfig *tls.Config, cfg Config) (_ session, err error) {
	var socket socket
	defer func() {
		if err != nil {
			socket.close()
		}
	}()
	rt := &http.Transport{
		Proxy:                  d.Proxy,
		DialContext:            socket.dialWith(ctx, d.NetDial),
		TLSClientConfig:        tlsConfig,
		MaxResponseHeaderBytes: 16 << 10,
		MaxIdleConnsPerHost:    -1, // the connection becomes the tunnel or is of no use
		OnProxyConnectResponse: proxyAnswer,
	}
	defer rt.CloseIdleConnections()
	var asked, answered time.Time
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest:         func(httptrace.WroteRequestInfo) { asked = time.Now() },
		GotFirstResponseByte: func() { answered = time.Now() },
	})
	//nolint:bodyclose // the WebSocket has taken the body
	ws, response, err := websocket.Dial(ctx, target.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     rt,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader:   d.Header.Clone(),
		Subprotocols: subprotocols(protocols()),
	})
	if err != nil {
		return nil, answer(response, err)
	}
	speaks, ok := agreed(protocols(), ws.Subprotocol())
	if !ok {
		return nil, fmt.Errorf("the gateway does not speak the WebSocket subprotocol %s: is %s its URL?",
			strings.Join(subprotocols(protocols()), " or "), target)
	}
	if response.TLS == nil {
		return nil, errors.New("the connection has no TLS")
	}
	m, err := speaks.start(newWSCarrier(ws, socket.conn), true, answered.Sub(asked), *response.TLS, cfg)
	if err != nil {
		return nil, err
	}
	err = m.awaitReady(ctx, func() transport.Code {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return transport.Timeout
		}
		return transport.Canceled
	})
	if err != nil {
		return nil, err
	}
	return m, nil
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

// tlsConfig returns the configuration for one dial.
func (d *Dialer) tlsConfig() (*tls.Config, error) {
	c := d.TLSClientConfig
	if c == nil || len(c.Certificates) == 0 && c.GetClientCertificate == nil {
		return nil, errNoCertificate
	}
	c = c.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	c.NextProtos = []string{"http/1.1"}
	c.ClientSessionCache = nil
	c.DynamicRecordSizingDisabled = true
	return c, nil
}

// proxyAnswer types the error of a proxy that refuses CONNECT.
func proxyAnswer(_ context.Context, proxy *url.URL, _ *http.Request, r *http.Response) error {
	if r.StatusCode == http.StatusOK {
		return nil
	}
	return &HandshakeError{
		Status:     r.StatusCode,
		RetryAfter: retryAfter(r.Header, time.Now()),
		Reason:     "this is the proxy " + proxy.Host,
	}
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

// socket remembers what a dial opened, to close it if the dial fails and to know
// what is below the tunnel if it does not.
type socket struct {
	conn net.Conn // the newest; read it after the dial only

	mu     sync.Mutex
	all    []net.Conn
	closed bool
}

func (s *socket) dialWith(dialing context.Context, dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	// http.Transport detaches its dials from the request; these end with it.
	return func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(dialing, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		s.conn = &cork{Conn: conn}
		s.all = append(s.all, s.conn)
		return s.conn, nil
	}
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range slices.Backward(s.all) {
		_ = c.Close()
	}
}
