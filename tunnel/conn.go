package tunnel

import (
	"net"
	"sync"

	"github.com/outgate/outgate/transport"
)

// conn is a stream after the exchange of header and reply. Its addresses are those
// of the target, not of the tunnel.
type conn struct {
	transport.Stream
	local, remote net.Addr
	from          *Incoming // on the accepting side

	once    sync.Once
	release func() // tells the link that the stream ended here; may be nil
}

var _ transport.Stream = (*conn)(nil)

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

func (c *conn) Close() error {
	err := c.Stream.Close()
	c.done()
	return err
}

func (c *conn) Reset(code transport.Code) error {
	err := c.Stream.Reset(code)
	c.done()
	return err
}

func (c *conn) done() {
	if c.release != nil {
		c.once.Do(c.release)
	}
}
