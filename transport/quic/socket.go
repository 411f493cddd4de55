package quic

import (
	"errors"
	"net"
	"sync"
	"syscall"

	"github.com/quic-go/quic-go"
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
	sized bool
}

func newSocket(c *net.UDPConn) *socket {
	_ = c.SetReadBuffer(socketBuffer) // as much as the kernel grants
	_ = c.SetWriteBuffer(socketBuffer)
	if raw, err := c.SyscallConn(); err == nil {
		forceBuffers(raw)
	}
	return &socket{UDPConn: c}
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
	return s.UDPConn.SyscallConn()
}

// plainSocket is any other PacketConn. Its buffers are not ours to size.
type plainSocket struct{ net.PacketConn }

func (plainSocket) SetReadBuffer(int) error  { return nil }
func (plainSocket) SetWriteBuffer(int) error { return nil }

// endpoint is a UDP socket and the connections on it. It closes with the last of
// its users: a Listener and each connection that it accepted, or the one
// connection that a Dialer made.
type endpoint struct {
	transport *quic.Transport
	socket    net.PacketConn
	closed    func() // called when all is closed; may be nil

	mu    sync.Mutex
	users int
}

// newEndpoint takes ownership of c. The caller is its first user.
func newEndpoint(c net.PacketConn) *endpoint {
	e := &endpoint{users: 1}
	if udp, ok := c.(*net.UDPConn); ok {
		e.socket = newSocket(udp)
	} else {
		e.socket = plainSocket{c}
	}
	e.transport = &quic.Transport{Conn: e.socket}
	return e
}

func (e *endpoint) hold() {
	e.mu.Lock()
	e.users++
	e.mu.Unlock()
}

// release ends one use. The last one waits until the socket's reader is gone.
func (e *endpoint) release() {
	e.mu.Lock()
	e.users--
	last := e.users == 0
	e.mu.Unlock()
	if !last {
		return
	}
	_ = e.transport.Close() // fails only for a socket that is closed already
	_ = e.socket.Close()
	if e.closed != nil {
		e.closed()
	}
}
