package muxstress

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
	"github.com/outgate/outgate/transport/websocket"
)

// handshake is how one side of a connection comes about on a socket that is there.
type handshake func(ctx context.Context, socket net.Conn) (transport.Mux, error)

// multiplexer is a network.Multiplexer. Both sides know each other by certificates.
type multiplexer struct{ agent, gateway handshake }

var _ network.Multiplexer = (*multiplexer)(nil)

// NewConn returns before the handshake is done: some callers make one side after the
// other.
func (m *multiplexer) NewConn(socket net.Conn, isServer bool, _ network.PeerScope) (network.MuxedConn, error) {
	side := m.agent
	if isServer {
		side = m.gateway
	}
	c := &conn{socket: socket, ready: make(chan struct{})}
	go func() {
		defer close(c.ready)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		c.mux, c.err = side(ctx, socket)
	}()
	return c, nil
}

// overWebSocket is the multiplexer that websocket carries.
func overWebSocket(agent, gateway *tls.Config, config websocket.Config) *multiplexer {
	return &multiplexer{
		agent: func(ctx context.Context, socket net.Conn) (transport.Mux, error) {
			d := &websocket.Dialer{
				TLSClientConfig: agent,
				Config:          config,
				NetDial:         func(context.Context, string, string) (net.Conn, error) { return socket, nil },
			}
			return d.Dial(ctx, "https://localhost")
		},
		gateway: func(ctx context.Context, socket net.Conn) (transport.Mux, error) {
			l := websocket.NewListener(config)
			server := &http.Server{Handler: l, ReadHeaderTimeout: time.Minute}
			sockets := &oneSocket{socket: tls.Server(socket, gateway), closed: make(chan struct{})}
			go func() { _ = server.Serve(sockets) }() // ends with Close, as it must
			m, err := l.Accept(ctx)
			return m, errors.Join(err, server.Close(), l.Close())
		},
	}
}

// oneSocket is a net.Listener for one connection.
type oneSocket struct {
	socket net.Conn
	taken  sync.Once
	ended  sync.Once
	closed chan struct{}
}

func (l *oneSocket) Accept() (c net.Conn, err error) {
	l.taken.Do(func() { c = l.socket })
	if c != nil {
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}

func (l *oneSocket) Addr() net.Addr { return l.socket.LocalAddr() }

func (l *oneSocket) Close() error {
	l.ended.Do(func() { close(l.closed) })
	return nil
}

// overQUIC is QUIC, with its datagrams one after the other on the socket.
func overQUIC(agent, gateway *tls.Config) *multiplexer {
	return &multiplexer{
		agent: func(ctx context.Context, socket net.Conn) (transport.Mux, error) {
			d := &quic.Dialer{
				TLSClientConfig: agent,
				ListenPacket: func(context.Context, string, string) (net.PacketConn, error) {
					return &datagrams{Conn: socket}, nil
				},
			}
			return d.Dial(ctx, "https://"+somewhere.String())
		},
		gateway: func(ctx context.Context, socket net.Conn) (transport.Mux, error) {
			l, err := quic.ListenPacket(&datagrams{Conn: socket}, gateway, quic.ListenConfig{})
			if err != nil {
				return nil, err
			}
			m, err := l.Accept(ctx)
			return m, errors.Join(err, l.Close())
		},
	}
}

// somewhere is the address of the only peer that there can be.
var somewhere = &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443}

// datagrams is a net.PacketConn on a stream of bytes.
type datagrams struct {
	net.Conn
	writing sync.Mutex
}

// ReadFrom implements net.PacketConn.
func (d *datagrams) ReadFrom(p []byte) (int, net.Addr, error) {
	var length [2]byte
	if _, err := io.ReadFull(d.Conn, length[:]); err != nil {
		return 0, nil, err
	}
	datagram := make([]byte, int(length[0])<<8|int(length[1]))
	if _, err := io.ReadFull(d.Conn, datagram); err != nil {
		return 0, nil, err
	}
	return copy(p, datagram), somewhere, nil
}

// WriteTo implements net.PacketConn.
func (d *datagrams) WriteTo(p []byte, _ net.Addr) (int, error) {
	if len(p) > 1<<16-1 {
		return 0, fmt.Errorf("muxstress: a datagram of %d bytes", len(p))
	}
	d.writing.Lock()
	defer d.writing.Unlock()
	if _, err := d.Conn.Write(append([]byte{byte(len(p) >> 8), byte(len(p))}, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}
