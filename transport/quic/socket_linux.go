package quic

import "syscall"

// forceBuffers exceeds the limits of net.core.rmem_max and wmem_max, where the
// process may (CAP_NET_ADMIN).
func forceBuffers(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) { // all of it is best effort
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, socketBuffer)
		_ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUFFORCE, socketBuffer)
	})
}
