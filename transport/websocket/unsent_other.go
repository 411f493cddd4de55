//go:build !linux

package websocket

import "net"

// limitUnsent does nothing: the kernel decides how much it buffers.
func limitUnsent(net.Conn, int) {}
