package websocket

import (
	"net"
	"syscall"
	"time"
)

// tune sets up the socket below a tunnel, whoever made it: a peer that is silent
// for good is noticed although nobody writes, and what is under way stays little.
// None of it is vital, so errors do not matter.
func tune(conn net.Conn, writeTimeout time.Duration) {
	for {
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		conn = above.NetConn()
	}
	if c, ok := conn.(interface {
		SetKeepAliveConfig(c net.KeepAliveConfig) error
	}); ok {
		_ = c.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 3})
	}
	if c, ok := conn.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			tuneTCP(raw, writeTimeout+writeTimeout/2)
		}
	}
}
