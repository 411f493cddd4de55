package websocket

import (
	"errors"
	"io"
	"net"

	"github.com/outgate/outgate/internal/cork"
)

// corked is a connection below TLS that can keep what is written and write it with
// few system calls: TLS makes a record, and a call, of each 16 KiB of a message.
type corked struct{ *cork.Conn }

func newCorked(conn net.Conn) *corked { return &corked{cork.New(conn)} }

// NetConn returns what is below.
func (c *corked) NetConn() net.Conn { return c.Conn.Conn }

// Read makes sure that an error of the network is known as one, and not taken for
// nonsense from the peer: a Dialer's caller can bring any kind of connection.
func (c *corked) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if _, ok := errors.AsType[net.Error](err); err == nil || ok || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
