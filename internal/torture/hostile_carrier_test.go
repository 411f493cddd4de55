//go:build linux

package torture

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/outgate/outgate/transport/websocket"
)

// webSocketAttacks come from anybody, or from a peer that has a certificate.
var webSocketAttacks = []attack{
	{name: "silent sockets", run: overTCP(func(net.Conn) error { return nil })},
	{name: "garbage for TLS", run: overTCP(func(c net.Conn) error {
		_, err := io.CopyN(c, rand.Reader, 1<<10)
		return err
	})},
	{name: "half a TLS handshake", run: overTCP(func(c net.Conn) error {
		// A record of a ClientHello that announces more than comes.
		_, err := c.Write([]byte{22, 3, 1, 0x02, 0x00, 1, 0, 1, 0xfc, 3, 3, 1, 2, 3})
		return err
	})},
	{name: "TLS without a certificate", run: func(ctx context.Context, g *ground) error {
		return many(crowd(), func(int) error {
			config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: g.mallory.RootCAs}
			c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", g.addr)
			if err != nil {
				return nil // refused, as it should be
			}
			defer c.Close()
			return closes(ctx, c)
		})
	}},
	{name: "slowloris", run: overTLS(func(ctx context.Context, _ *ground, c net.Conn) error {
		_, err := io.WriteString(c, "GET "+websocket.Path+" HTTP/1.1\r\nX: ")
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for err == nil && ctx.Err() == nil {
			<-tick.C
			_, err = io.WriteString(c, "x")
		}
		return nil // it is closed; or closes will say that it is not
	})},
	{name: "a header without end", run: overTLS(func(_ context.Context, _ *ground, c net.Conn) error {
		_, err := io.WriteString(c, "GET "+websocket.Path+" HTTP/1.1\r\nX: ")
		for junk := make([]byte, 16<<10); err == nil; {
			for i := range junk {
				junk[i] = 'x'
			}
			_, err = c.Write(junk)
		}
		return nil // as above
	})},
	{name: "a tunnel that says nothing", run: upgraded(func(net.Conn) error { return nil })},
	{name: "garbage for WebSocket", run: upgraded(func(c net.Conn) error {
		_, err := io.CopyN(c, rand.Reader, 1<<10)
		return err
	})},
	{name: "a message of 2^63 bytes", run: upgraded(func(c net.Conn) error {
		_, err := c.Write([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0})
		return err
	})},
	{name: "a message without end", run: upgraded(func(c net.Conn) error {
		first, more := fragment(0x02), fragment(0x00)
		_, err := c.Write(first)
		for err == nil {
			_, err = c.Write(more)
		}
		return nil // as above
	})},
	// The goodbye of the handshake that timed out stands behind the pongs.
	{name: "WebSocket pings without reading the pongs", within: 30 * time.Second, run: upgraded(func(c net.Conn) error {
		ping := append([]byte{0x89, 0x80 | 100, 0, 0, 0, 0}, make([]byte, 100)...)
		var err error
		for err == nil {
			_, err = c.Write(ping)
		}
		return nil // as above
	})},
}

// fragment is a frame of a message that goes on, masked with zero.
func fragment(opcode byte) []byte {
	return append([]byte{opcode, 0x80 | 126, 0x40, 0x00, 0, 0, 0, 0}, make([]byte, 0x4000)...)
}

func overTCP(do func(net.Conn) error) func(context.Context, *ground) error {
	return func(ctx context.Context, g *ground) error {
		return many(crowd(), func(int) error {
			c, err := new(net.Dialer).DialContext(ctx, "tcp", g.addr)
			if err != nil {
				return err
			}
			defer c.Close()
			if err := do(c); err != nil {
				return err
			}
			return closes(ctx, c)
		})
	}
}

// overTLS attacks with a good certificate, from some connections at the same time.
func overTLS(do func(context.Context, *ground, net.Conn) error) func(context.Context, *ground) error {
	return func(ctx context.Context, g *ground) error {
		return many(crowd(), func(int) error {
			config := g.mallory.Clone()
			config.NextProtos = []string{"http/1.1"}
			c, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", g.addr)
			if err != nil {
				return fmt.Errorf("TLS: %w", err)
			}
			defer c.Close()
			deadline, _ := ctx.Deadline()
			_ = c.SetDeadline(deadline)
			if err := do(ctx, g, c); err != nil {
				return err
			}
			return closes(ctx, c)
		})
	}
}

// upgraded attacks after the gateway has agreed to speak WebSocket.
func upgraded(do func(net.Conn) error) func(context.Context, *ground) error {
	return overTLS(func(_ context.Context, g *ground, c net.Conn) error {
		_, err := io.WriteString(c, "GET "+websocket.Path+" HTTP/1.1\r\nHost: gateway\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: "+g.carrier.subprotocol+"\r\n\r\n")
		if err != nil {
			return err
		}
		answer := make([]byte, len("HTTP/1.1 101"))
		if _, err := io.ReadFull(c, answer); err != nil {
			return err
		}
		if string(answer[9:]) != fmt.Sprint(http.StatusSwitchingProtocols) {
			return errors.New("no upgrade: " + string(answer))
		}
		return do(c)
	})
}

// quicAttacks come from anybody. There are no connections that could be closed, so
// the gateway has to endure them.
var quicAttacks = []attack{
	{name: "garbage datagrams", endures: true, run: overUDP(400, func(p []byte) []byte {
		_, _ = rand.Read(p[:1200])
		return p[:1200]
	})},
	// Each is a handshake until it times out, of which there may be 1024.
	{name: "forged first packets", endures: true, goroutines: 4 * 1024, run: overUDP(100, func(p []byte) []byte {
		// A long header of version 1 with random connection IDs and an empty token.
		_, _ = rand.Read(p[:1200])
		copy(p, []byte{0xc3, 0, 0, 0, 1, 8})
		p[14], p[23], p[24], p[25] = 8, 0, 0x44, 0x90
		return p[:1200]
	})},
}

// overUDP sends datagrams, n for each of a crowd.
func overUDP(n int, datagram func([]byte) []byte) func(context.Context, *ground) error {
	return func(ctx context.Context, g *ground) error {
		return many(crowd(), func(int) error {
			c, err := new(net.Dialer).DialContext(ctx, "udp", g.addr)
			if err != nil {
				return err
			}
			defer c.Close()
			buf := make([]byte, 1500)
			for range n {
				if _, err := c.Write(datagram(buf)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
