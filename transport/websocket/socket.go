package websocket

import (
	"context"
	"net"
	"slices"
	"sync"
)

type netDial = func(ctx context.Context, network, address string) (net.Conn, error)

// socket remembers what a dial opened, to close it if the dial fails and to know
// what is below the tunnel if it does not.
type socket struct {
	dial netDial
	conn net.Conn // the newest; read it after the dial only

	mu     sync.Mutex
	all    []net.Conn
	closed bool
}

// dialWith returns the dial of an http.Transport. That one detaches its dials from
// the request; these end with ctx.
func (s *socket) dialWith(ctx context.Context) netDial {
	return func(_ context.Context, network, address string) (net.Conn, error) {
		conn, err := s.dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			_ = conn.Close()
			return nil, net.ErrClosed
		}
		s.conn = newCorked(conn)
		s.all = append(s.all, s.conn)
		return s.conn, nil
	}
}

func (s *socket) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for _, c := range slices.Backward(s.all) {
		_ = c.Close()
	}
}
