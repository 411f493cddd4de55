package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/coder/websocket"

	"github.com/outgate/outgate/transport"
)

// innerCarrier is a carrier inside mutual TLS inside a WebSocket. What is around
// the inner TLS belongs to whoever ends the outer one, so nothing that comes from
// there says more than that the connection is lost.
type innerCarrier struct {
	*tls.Conn
	cork *corked // between the inner TLS and the WebSocket: one message for the records of a batch
	ws   *wsCarrier
}

// newInnerCarrier does the inner handshake, as tls.Client or tls.Server. Both sides
// negotiate the subprotocol once more, by ALPN, because that of the WebSocket was for
// everybody between to read and to change.
func newInnerCarrier(ctx context.Context, ws *wsCarrier, as func(net.Conn, *tls.Config) *tls.Conn, c *tls.Config, subprotocol string) (*innerCarrier, error) {
	below := newCorked(messages{ws})
	inner := &innerCarrier{as(below, c), below, ws}
	stop := context.AfterFunc(ctx, ws.Cut)
	err := inner.Handshake() //nolint:noctx // HandshakeContext would wait for a goodbye when ctx ends
	if !stop() {
		err = errors.Join(context.Cause(ctx), err)
	}
	if err != nil {
		return nil, fmt.Errorf("TLS inside the WebSocket: %w", err)
	}
	if spoken := inner.ConnectionState().NegotiatedProtocol; spoken != subprotocol {
		return nil, fmt.Errorf("TLS inside the WebSocket is for the protocol %q, but the WebSocket for %q: something between has changed that", spoken, subprotocol)
	}
	return inner, nil
}

// Read implements carrier.
func (c *innerCarrier) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		err = lost(err)
	}
	return n, err
}

// WriteMessage implements carrier.
func (c *innerCarrier) WriteMessage(p []byte) error {
	c.cork.Cork()
	_, err := c.Write(p)
	if flushed := c.cork.Uncork(); err == nil {
		err = flushed
	}
	if err != nil {
		return lost(err)
	}
	return nil
}

// Close implements carrier. The frame that says why is the peer's to believe; the
// close of the WebSocket is for those between, and waits for what is under way.
func (c *innerCarrier) Close(e *transport.CloseError) {
	_ = c.WriteMessage(appendClose(nil, e)) // which may fail: the peer could be gone
	c.ws.Close(&transport.CloseError{})
}

// Cut implements carrier.
func (c *innerCarrier) Cut() { c.ws.Cut() }

// Release implements carrier.
func (c *innerCarrier) Release() { c.ws.Release() }

// lost is the end of a connection that nobody has vouched for.
func lost(err error) *transport.CloseError {
	e := &transport.CloseError{Code: transport.ConnectionLost, Reason: closeCause(err).Reason, Remote: true}
	if frame, ok := errors.AsType[websocket.CloseError](err); ok {
		e.Reason = statusReason(frame)
	}
	return e
}

// messages is a net.Conn whose bytes are the contents of WebSocket messages. A
// Write is one message if it is not too long for that.
type messages struct{ ws *wsCarrier }

func (m messages) Read(p []byte) (int, error) { return m.ws.Read(p) }

func (m messages) Write(p []byte) (n int, err error) {
	for n < len(p) {
		message := p[n:min(len(p), n+maxMessage)]
		if err := m.ws.WriteMessage(message); err != nil {
			return n, err
		}
		n += len(message)
	}
	return n, nil
}

func (m messages) Close() error                       { m.ws.Cut(); return nil }
func (m messages) LocalAddr() net.Addr                { return m.ws.LocalAddr() }
func (m messages) RemoteAddr() net.Addr               { return m.ws.RemoteAddr() }
func (m messages) SetDeadline(t time.Time) error      { return m.ws.conn.SetDeadline(t) }
func (m messages) SetReadDeadline(t time.Time) error  { return m.ws.conn.SetReadDeadline(t) }
func (m messages) SetWriteDeadline(t time.Time) error { return m.ws.conn.SetWriteDeadline(t) }
