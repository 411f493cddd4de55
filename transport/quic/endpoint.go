package quic

import (
	"errors"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

// endpoint is a UDP socket and the connections on it. It closes with the last of
// its users: a Listener and each connection that it accepted, or the one
// connection that a Dialer made.
type endpoint struct {
	transport *quic.Transport
	socket    net.PacketConn
	closed    func() // called when all is closed; may be nil

	settled atomic.Bool           // there is, or was, a connection: a lost packet is no reason to give up
	refused atomic.Pointer[error] // why a packet could not be sent before

	mu    sync.Mutex
	users int
	muxes map[*mux]struct{}
}

// newEndpoint takes ownership of c. The caller is its first user.
func newEndpoint(c net.PacketConn) *endpoint {
	e := &endpoint{users: 1, muxes: make(map[*mux]struct{})}
	if udp, ok := c.(*net.UDPConn); ok {
		e.socket = newSocket(udp, e)
	} else {
		e.socket = plainSocket{c, e}
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

// add makes m one that learns when the socket fails.
func (e *endpoint) add(m *mux) {
	e.settled.Store(true)
	e.mu.Lock()
	e.muxes[m] = struct{}{}
	e.mu.Unlock()
}

// remove ends the use of m.
func (e *endpoint) remove(m *mux) {
	e.mu.Lock()
	delete(e.muxes, m)
	e.mu.Unlock()
	e.release()
}

// notice looks at an error of the socket. The QUIC implementation ends all
// connections of a socket that was closed under them, so they come first.
func (e *endpoint) notice(err error) {
	if err == nil || !errors.Is(err, net.ErrClosed) {
		return
	}
	e.mu.Lock()
	muxes := slices.Collect(maps.Keys(e.muxes))
	e.mu.Unlock()
	lost := &transport.CloseError{Code: transport.ConnectionLost, Reason: cutReason(err.Error()), Remote: true}
	var wg sync.WaitGroup
	for _, m := range muxes {
		wg.Go(func() { m.lose(lost) })
	}
	wg.Wait()
}

// excuses reports whether a packet that could not be sent counts as one that was
// lost on its way: routes, links and firewall rules come back. Who is still dialing
// wants to know at once.
func (e *endpoint) excuses(err error) bool {
	e.notice(err)
	if !e.settled.Load() {
		e.refused.CompareAndSwap(nil, &err) // the QUIC implementation keeps its text only
		return false
	}
	number, ok := errors.AsType[syscall.Errno](err)
	return ok && slices.Contains([]syscall.Errno{
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL,
		syscall.ECONNREFUSED, syscall.EPERM, syscall.EACCES, syscall.ENOBUFS,
	}, number)
}

func (e *endpoint) writeTo(c net.PacketConn, b []byte, to net.Addr) (int, error) {
	n, err := c.WriteTo(b, to)
	if err != nil && e.excuses(err) {
		return len(b), nil
	}
	return n, err
}
