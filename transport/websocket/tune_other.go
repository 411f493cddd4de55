//go:build !linux

package websocket

import (
	"syscall"
	"time"
)

// tuneTCP does nothing: the kernel decides how much it buffers and how long it
// sends again. A peer that is gone is noticed by keep-alives, by WriteTimeout and
// by the pings of the tunnel.
func tuneTCP(syscall.RawConn, time.Duration) {}
