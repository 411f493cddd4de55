package websocket

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"

	"github.com/coder/websocket"

	"github.com/outgate/outgate/transport"
)

// carrier moves messages. All of it may be called concurrently, except Read and
// WriteMessage with themselves.
type carrier interface {
	io.Reader                      // the contents of the messages, one after the other
	WriteMessage(p []byte) error   // p is the carrier's until it returns
	Close(e *transport.CloseError) // says why, then closes; may take until Cut is called
	Cut()                          // closes at once; everything pending ends
	Release()                      // lets go of what is left after Cut, if Close was not called
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// wsCarrier is a carrier over a WebSocket.
type wsCarrier struct {
	ws      *websocket.Conn
	conn    net.Conn  // below TLS, so that closing it never waits for the peer
	cork    *corked   // the same, if it can collect the records of a message; or nil
	masked  io.Writer // where a client writes its frames; nil for a server
	message io.Reader // what is being read, or nil
}

// newWSCarrier takes over ws, whose bytes pass through conn. A client sets masked.
func newWSCarrier(ws *websocket.Conn, conn net.Conn, cfg Config) *wsCarrier {
	ws.SetReadLimit(maxMessage)
	if c, ok := conn.(*tls.Conn); ok {
		conn = c.NetConn()
	}
	c := &wsCarrier{ws: ws, conn: conn}
	c.cork, _ = conn.(*corked)
	tune(conn, cfg.WriteTimeout)
	return c
}

func (c *wsCarrier) Read(p []byte) (int, error) {
	for {
		if c.message == nil {
			// Neither here nor in WriteMessage is there a deadline: one that
			// fires closes the connection without saying why.
			typ, message, err := c.ws.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if typ != websocket.MessageBinary {
				return 0, protocolError(errors.New("a message that is not binary"))
			}
			c.message = message
		}
		n, err := c.message.Read(p)
		switch {
		case err == io.EOF: // as it is: the end of the message
			c.message, err = nil, nil
		case err != nil && c.masked == nil:
			n = 0 // the library has not unmasked what it returns with an error
		}
		if err != nil {
			// The library does not undo the mask of a piece that broke off.
			return 0, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

func (c *wsCarrier) WriteMessage(p []byte) error {
	if c.cork == nil {
		return c.writeMessage(p)
	}
	c.cork.Cork()
	err := c.writeMessage(p)
	if flushed := c.cork.Uncork(); err == nil {
		err = flushed
	}
	return err
}

func (c *wsCarrier) writeMessage(p []byte) error {
	if c.masked != nil {
		// The control frames of the library do not come between, since either
		// side writes its frame to TLS at once.
		return writeMasked(c.masked, p)
	}
	return c.ws.Write(context.Background(), websocket.MessageBinary, p)
}

func (c *wsCarrier) Close(e *transport.CloseError) {
	status, reason := closeFrame(e)
	_ = c.ws.Close(status, reason) // which may fail: the peer could be gone
}

func (c *wsCarrier) Cut() { _ = c.conn.Close() }

// Release implements carrier. The library's connection has a finalizer and points
// to itself, so that the garbage collector would keep it for ever.
func (c *wsCarrier) Release() { _ = c.ws.CloseNow() }

func (c *wsCarrier) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *wsCarrier) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }
