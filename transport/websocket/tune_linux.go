package websocket

import (
	"syscall"
	"time"
)

// tuneTCP gives up on a peer that has acknowledged nothing for a while, and keeps
// the kernel from taking more than about a message that it cannot send yet:
// megabytes of a transfer in its buffer would hold up every ping that comes after
// them, on a slow way for longer than the tunnel waits for an answer.
func tuneTCP(raw syscall.RawConn, unacknowledged time.Duration) {
	const (
		tcpUserTimeout  = 18 // TCP_USER_TIMEOUT, in milliseconds
		tcpNotSentLowAt = 25 // TCP_NOTSENT_LOWAT
	)
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(unacknowledged.Milliseconds()))
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, maxMessage)
	})
}
