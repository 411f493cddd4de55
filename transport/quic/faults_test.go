package quic_test

import (
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
