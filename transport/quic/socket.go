package quic

import (
	"errors"
	"net"
	"syscall"
)

// socketBuffer is what the QUIC implementation recommends for one socket. The
// kernel may grant less, which costs packets under load and nothing else.
const socketBuffer = 7 << 20

// socket is a UDP socket of the operating system, with its buffers sized.
//
// The QUIC implementation would size them by itself, and print to the log of the
// process when the kernel grants less. It does not check where it cannot reach
// the raw socket, so the raw socket stays out of its reach until it has asked
// for both sizes.
type socket struct {
	*net.UDPConn
	endpoint *endpoint
	sized    bool
}

func newSocket(c *net.UDPConn, e *endpoint) *socket {
	_ = c.SetReadBuffer(socketBuffer) // as much as the kernel grants
	_ = c.SetWriteBuffer(socketBuffer)
	if raw, err := c.SyscallConn(); err == nil {
		forceBuffers(raw)
	}
	return &socket{UDPConn: c, endpoint: e}
}

var errNotSized = errors.New("quic: the socket is being set up")

func (s *socket) SetReadBuffer(int) error { return nil }

func (s *socket) SetWriteBuffer(int) error {
	s.sized = true
	return nil
}

func (s *socket) SyscallConn() (syscall.RawConn, error) {
	if !s.sized {
		return nil, errNotSized
	}
	raw, err := s.UDPConn.SyscallConn()
	if err != nil {
		return nil, err
	}
	return rawSocket{raw, s.endpoint}, nil
}

func (s *socket) WriteMsgUDP(b, oob []byte, to *net.UDPAddr) (n, oobn int, err error) {
	if n, oobn, err = s.UDPConn.WriteMsgUDP(b, oob, to); err != nil && s.endpoint.excuses(err) {
		return len(b), len(oob), nil
	}
	return n, oobn, err
}

func (s *socket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.UDPConn.ReadFrom(b)
	s.endpoint.notice(err)
	return n, from, err
}

func (s *socket) WriteTo(b []byte, to net.Addr) (int, error) {
	return s.endpoint.writeTo(s.UDPConn, b, to)
}

// rawSocket is the socket where the QUIC implementation reads in batches.
type rawSocket struct {
	syscall.RawConn
	endpoint *endpoint
}

func (r rawSocket) Read(f func(fd uintptr) bool) error {
	err := r.RawConn.Read(f)
	r.endpoint.notice(err)
	return err
}

// plainSocket is any other PacketConn. Its buffers are not ours to size.
type plainSocket struct {
	net.PacketConn
	endpoint *endpoint
}

func (plainSocket) SetReadBuffer(int) error  { return nil }
func (plainSocket) SetWriteBuffer(int) error { return nil }

func (s plainSocket) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := s.PacketConn.ReadFrom(b)
	s.endpoint.notice(err)
	return n, from, err
}

func (s plainSocket) WriteTo(b []byte, to net.Addr) (int, error) {
	return s.endpoint.writeTo(s.PacketConn, b, to)
}
