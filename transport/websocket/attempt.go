package websocket

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/coder/websocket"

	"github.com/outgate/outgate/transport"
)

// attempt is one Dial.
type attempt struct {
	target *url.URL
	proxy  *url.URL // or nil
	header http.Header
	speaks []protocol
	outer  *tls.Config // around the WebSocket
	inner  *tls.Config // inside, or nil
	cfg    Config

	socket    socket
	body      io.Writer   // the connection below the WebSocket, once there is one
	pastProxy atomic.Bool // what fails from here on is not the proxy's fault
	secured   atomic.Bool // the TLS with the gateway is done
}

func (a *attempt) dial(ctx context.Context) (_ session, err error) {
	defer func() {
		if err != nil {
			a.socket.close()
		}
	}()
	var asked, answered time.Time
	//nolint:bodyclose // the WebSocket has taken the body
	ws, response, err := a.upgrade(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		TLSHandshakeStart:    func() { a.pastProxy.Store(true) },
		TLSHandshakeDone:     func(_ tls.ConnectionState, err error) { a.secured.Store(err == nil) },
		WroteRequest:         func(httptrace.WroteRequestInfo) { asked = time.Now() },
		GotFirstResponseByte: func() { answered = time.Now() },
	}))
	if err != nil {
		return nil, answer(response, err)
	}
	over := newWSCarrier(ws, a.socket.conn, a.cfg)
	over.masked = a.body
	defer func() {
		if err != nil {
			over.Cut()
			over.Release()
		}
	}()
	spoken, ok := agreed(a.speaks, ws.Subprotocol())
	switch {
	case !ok:
		return nil, fmt.Errorf("the gateway does not speak the WebSocket subprotocol %s: is %s its URL?",
			strings.Join(subprotocols(a.speaks), " or "), a.target)
	case response.TLS == nil:
		return nil, errors.New("the connection has no TLS")
	}
	m, err := a.start(ctx, over, spoken, answered.Sub(asked), *response.TLS)
	if err != nil {
		return nil, err
	}
	err = m.awaitReady(ctx, func() transport.Code {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			return transport.Timeout
		}
		return transport.Canceled
	})
	switch {
	case err != nil && a.inner != nil: // the gateway may not trust the agent's certificate
		return nil, fmt.Errorf("inside the WebSocket: %w", err)
	case err != nil:
		return nil, err
	}
	return m, nil
}

// upgrade asks for the WebSocket.
func (a *attempt) upgrade(ctx context.Context) (*websocket.Conn, *http.Response, error) {
	rt := &http.Transport{
		Proxy:                  plainProxy(a.proxy),
		DialContext:            a.socket.dialWith(ctx),
		TLSClientConfig:        a.outer,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConnsPerHost:    -1, // the connection becomes the tunnel or is of no use
		OnProxyConnectResponse: proxyAnswer,
	}
	defer rt.CloseIdleConnections()
	body := &upgraded{RoundTripper: rt}
	defer func() { a.body = body.conn }()
	return websocket.Dial(ctx, a.target.String(), &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     body,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader:   a.header,
		Subprotocols: subprotocols(a.speaks),
	})
}

// start begins what the peers have agreed on.
func (a *attempt) start(ctx context.Context, over *wsCarrier, spoken protocol, rtt time.Duration, state tls.ConnectionState) (session, error) {
	if a.inner == nil {
		return spoken.start(over, true, rtt, state, a.cfg)
	}
	inside, err := newInnerCarrier(ctx, over, tls.Client, a.inner, spoken.subprotocol)
	if err != nil {
		return nil, err
	}
	return spoken.start(inside, true, rtt, inside.ConnectionState(), a.cfg)
}

// explain says whose error it is and, where that is known, what to do about it.
func (a *attempt) explain(ctx context.Context, err error) error {
	_, foreign := errors.AsType[x509.UnknownAuthorityError](err)
	if alert, ok := errors.AsType[*net.OpError](err); ok && alert.Op == "remote error" {
		foreign = foreign || strings.HasSuffix(alert.Err.Error(), "protocol version not supported") // no gateway lacks TLS 1.3
	}
	switch {
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case foreign && a.inner == nil:
		err = fmt.Errorf("%w (does a load balancer or proxy end the TLS? Then set Dialer.OuterTLS)", err)
	case a.pastProxy.Load() && !a.secured.Load() && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)):
		err = fmt.Errorf("closed before the TLS handshake was done, perhaps because of too many handshakes: %w", err)
	}
	if a.proxy != nil && !a.pastProxy.Load() {
		err = blameProxy(a.proxy, err)
	}
	if ctx.Err() != nil { // which says where it was going
		return err
	}
	return fmt.Errorf("websocket: dial %s: %w", a.target.Host, err)
}

// upgraded remembers the connection that an upgrade leaves to its caller.
type upgraded struct {
	http.RoundTripper
	conn io.Writer
}

// RoundTrip implements http.RoundTripper.
func (u *upgraded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := u.RoundTripper.RoundTrip(r)
	if err == nil && response.StatusCode == http.StatusSwitchingProtocols {
		u.conn, _ = response.Body.(io.Writer)
	}
	return response, err
}
