package websocket

import (
	"net"
	"syscall"
)

// limitUnsent keeps the kernel from taking more than about n bytes that it cannot
// send yet. Megabytes of a transfer in its buffer would hold up every ping that
// comes after them, on a slow way for longer than the tunnel waits for an answer.
func limitUnsent(conn net.Conn, n int) {
	const tcpNotSentLowAt = 25 // TCP_NOTSENT_LOWAT
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	// Without it the connection works as well as anybody's, so errors do not matter.
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, n)
	})
}
