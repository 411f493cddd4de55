package websocket

import (
	"errors"
	"io"
	"net"
	"sync"
)

// cork is a connection below TLS that can collect what is written and write it
// at once. A WebSocket client masks in pieces of 4 KiB, and TLS makes a record
// and a system call of each; 24 calls for one message become one.
type cork struct {
	net.Conn

	mu         sync.Mutex
	collecting bool
	buf        []byte
}

// NetConn returns what is below.
func (c *cork) NetConn() net.Conn { return c.Conn }

// Read makes sure that an error of the network is known as one, and not taken for
// nonsense from the peer: a Dialer's caller can bring any kind of connection.
func (c *cork) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if _, ok := errors.AsType[net.Error](err); err == nil || ok || errors.Is(err, io.EOF) {
		return n, err
	}
	return n, &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}

func (c *cork) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.collecting {
		return c.Conn.Write(p)
	}
	if len(c.buf)+len(p) > bufferSize {
		if err := c.write(); err != nil {
			return 0, err
		}
	}
	c.buf = append(grow(c.buf), p...)
	return len(p), nil
}

// collect starts to collect, up to the next flush.
func (c *cork) collect() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collecting = true
}

func (c *cork) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.collecting = false
	return c.write()
}

// write writes what was collected. c.mu is held.
func (c *cork) write() error {
	_, err := c.Conn.Write(c.buf)
	recycle(c.buf)
	c.buf = nil
	return err
}
