package websocket_test

import (
	"context"
	"net"
	"testing"
	"time"
)

// farAway dials over a way that takes delay in each direction and is otherwise
// as fast as loopback.
func farAway(tb testing.TB, delay time.Duration) func(context.Context, string, string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := new(net.Dialer).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		near, far := net.Pipe()
		tb.Cleanup(func() { _, _ = near.Close(), conn.Close() })
		go late(conn, far, delay)
		go late(far, conn, delay)
		return addressed{near, conn}, nil
	}
}

// addressed is a net.Pipe that has addresses.
type addressed struct {
	net.Conn
	real net.Conn
}

func (a addressed) LocalAddr() net.Addr  { return a.real.LocalAddr() }
func (a addressed) RemoteAddr() net.Addr { return a.real.RemoteAddr() }

// late copies from src to dst, everything delay later, until either ends.
func late(dst, src net.Conn, delay time.Duration) {
	type piece struct {
		b  []byte
		at time.Time
	}
	way := make(chan piece, 10_000)
	go func() {
		defer close(way)
		for {
			b := make([]byte, 64<<10)
			n, err := src.Read(b)
			if n > 0 {
				way <- piece{b[:n], time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	ended := false
	for p := range way {
		<-time.After(time.Until(p.at))
		if !ended {
			_, err := dst.Write(p.b)
			ended = err != nil
		}
	}
	_ = dst.Close()
}
