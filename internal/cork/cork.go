package cork

import (
	"net"
	"sync"
)

// Conn is a connection that can keep what is written to it. All methods may be
// called concurrently, except Read with itself.
type Conn struct {
	net.Conn

	mu     sync.Mutex
	corked bool
	kept   *buffer // or nil
}

// New returns a Conn over conn, which it owns.
func New(conn net.Conn) *Conn { return &Conn{Conn: conn} }

// Write implements net.Conn. Between Cork and Uncork it keeps p.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.corked {
		return c.Conn.Write(p)
	}
	if c.kept != nil && len(c.kept.b)+len(p) > bufferSize {
		if err := c.flush(); err != nil {
			return 0, err
		}
	}
	if len(p) > bufferSize {
		return c.Conn.Write(p)
	}
	if c.kept == nil {
		c.kept = get()
	}
	c.kept.b = append(c.kept.b, p...)
	return len(p), nil
}

// Cork makes Write keep what it gets, up to the next Uncork.
func (c *Conn) Cork() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = true
}

// Uncork writes what was kept.
func (c *Conn) Uncork() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.corked = false
	return c.flush()
}

// flush writes what was kept. c.mu is held.
func (c *Conn) flush() error {
	if c.kept == nil {
		return nil
	}
	_, err := c.Conn.Write(c.kept.b)
	c.kept.put()
	c.kept = nil
	return err
}
