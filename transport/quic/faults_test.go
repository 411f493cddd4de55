package quic_test

import (
	"bytes"
	"net"
	"sync/atomic"
)

// muteConn is a socket whose packets get lost, both ways, once it is muted.
type muteConn struct {
	net.PacketConn
	muted atomic.Bool
}

func (c *muteConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || !c.muted.Load() {
			return n, from, err
		}
	}
}

func (c *muteConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.muted.Load() {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

// lossyConn is a socket that loses every tenth packet, both ways.
type lossyConn struct {
	net.PacketConn
	read, written atomic.Int64
}

func (c *lossyConn) ReadFrom(b []byte) (int, net.Addr, error) {
	for {
		n, from, err := c.PacketConn.ReadFrom(b)
		if err != nil || c.read.Add(1)%10 != 0 {
			return n, from, err
		}
	}
}

func (c *lossyConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.written.Add(1)%10 == 0 {
		return len(b), nil
	}
	return c.PacketConn.WriteTo(b, to)
}

// trapConn is a socket that keeps what it should send first, and sends nothing.
type trapConn struct {
	net.PacketConn
	sent chan []byte // with room for one
}

func (c *trapConn) WriteTo(b []byte, _ net.Addr) (int, error) {
	select {
	case c.sent <- bytes.Clone(b):
	default:
	}
	return len(b), nil
}

// haltingConn is a socket that falls silent when it has proven its address.
type haltingConn struct {
	net.PacketConn
	halted atomic.Bool
}

func (c *haltingConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if c.halted.Load() {
		return len(b), nil
	}
	n, err := c.PacketConn.WriteTo(b, to)
	if hasToken(b) {
		c.halted.Store(true)
	}
	return n, err
}

// hasToken reports whether an Initial packet answers a Retry (RFC 9000, section
// 17.2.2).
func hasToken(b []byte) bool {
	if len(b) < 7 || b[0]&0xf0 != 0xc0 {
		return false
	}
	b = b[5:]        // the first byte and the version
	b = b[1+b[0]:]   // the connection ID of the destination
	b = b[1+b[0]:]   // and of the source
	return b[0] != 0 // the length of the token
}

// deniedConn is a socket whose sends fail while err is set.
type deniedConn struct {
	net.PacketConn
	err atomic.Pointer[error]
}

func (c *deniedConn) WriteTo(b []byte, to net.Addr) (int, error) {
	if err := c.err.Load(); err != nil {
		return 0, *err
	}
	return c.PacketConn.WriteTo(b, to)
}
