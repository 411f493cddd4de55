//go:build !linux

package quic

import "syscall"

// forceBuffers does nothing: only Linux lets a process exceed the limits.
func forceBuffers(syscall.RawConn) {}
