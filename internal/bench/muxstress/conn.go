package muxstress

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/libp2p/go-libp2p/core/network"

	"github.com/outgate/outgate/transport"
)

// conn is a transport.Mux as libp2p sees it.
type conn struct {
	socket net.Conn
	ready  chan struct{} // closed when mux or err is set
	mux    transport.Mux
	err    error
}

var _ network.MuxedConn = (*conn)(nil)

func (c *conn) wait() (transport.Mux, error) {
	<-c.ready
	return c.mux, c.err
}

func (c *conn) Close() error { return c.CloseWithError(0) }

func (c *conn) CloseWithError(code network.ConnErrorCode) error {
	if m, err := c.wait(); err == nil {
		_ = m.CloseWithError(transport.Code(code), "") // never fails
	}
	_ = c.socket.Close() // it may be closed
	return nil
}

func (c *conn) IsClosed() bool {
	m, err := c.wait()
	return err != nil || m.Context().Err() != nil
}

func (c *conn) As(any) bool { return false }

// greeting makes a new stream known to the peer. With libp2p it is known before its
// first byte.
const greeting = 'g'

func (c *conn) OpenStream(ctx context.Context) (network.MuxedStream, error) {
	m, err := c.wait()
	if err != nil {
		return nil, err
	}
	s, err := m.OpenStream(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := s.Write([]byte{greeting}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return stream{s}, nil
}

func (c *conn) AcceptStream() (network.MuxedStream, error) {
	m, err := c.wait()
	if err != nil {
		return nil, err
	}
	s, err := m.AcceptStream(context.Background())
	if err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(s, make([]byte, 1)); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return stream{s}, nil
}

// stream is a transport.Stream as libp2p sees it. Ours has no end of reading alone
// beside Close, so CloseRead does nothing.
type stream struct{ transport.Stream }

var _ network.MuxedStream = stream{}

func (s stream) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	return n, translated(err)
}

func (s stream) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	return n, translated(err)
}

// CloseWrite succeeds on a stream that the peer has closed, as it does in libp2p.
func (s stream) CloseWrite() error {
	err := s.Stream.CloseWrite()
	if reset, ok := errors.AsType[*transport.StreamError](err); ok && reset.Remote && reset.Code == transport.Canceled {
		return nil
	}
	return translated(err)
}

func (s stream) CloseRead() error { return nil }

func (s stream) Reset() error { return s.Stream.Reset(transport.Canceled) }

func (s stream) ResetWithError(code network.StreamErrorCode) error {
	return s.Stream.Reset(transport.Code(code))
}

// translated returns the error that libp2p has for a reset.
func translated(err error) error {
	if reset, ok := errors.AsType[*transport.StreamError](err); ok {
		return &network.StreamError{ErrorCode: network.StreamErrorCode(reset.Code), Remote: reset.Remote, TransportError: err}
	}
	return err
}
