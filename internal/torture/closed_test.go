package torture

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"testing"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/quic"
)

func TestAConnectionThatWasClosedIsNeverACleanEndOfItsStreams(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		ids := newIdentities(t)
		inParallel(t, scaled(t, 1000, 100, "rounds"), 8, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			p, err := connect(ctx, c, ids, nil)
			if err != nil {
				return err
			}
			defer p.close()
			sending, receiving := p.sides(i)
			go func() { _ = send(ctx, sending, content(i), sizeOf(c, i)) }()
			code := transport.Code(i % 20)
			whole := code != transport.Timeout || c.hasty == ""
			err = receive(ctx, receiving, content(i), sizeOf(c, i), whole, func() error {
				// It returns when the other side has read what there is.
				go func() { _ = sending.CloseWithError(code, "bye") }()
				return nil
			})
			if err == nil && !errors.Is(context.Cause(receiving.Context()), code) {
				return context.Cause(receiving.Context())
			}
			return err
		})
	})
}

func TestAMiddleboxThatClosesTheWebSocketIsNeverACleanEnd(t *testing.T) {
	for _, c := range carriers {
		if c.network != "tcp" {
			continue // there is no WebSocket to close
		}
		t.Run(c.name, func(t *testing.T) {
			ids := newIdentities(t)
			inParallel(t, scaled(t, 1000, 100, "rounds"), 8, func(i int) error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				var between *middlebox
				p, err := connect(ctx, c, ids, func(target net.Addr) (_ net.Addr, err error) {
					if between, err = newMiddlebox(ids, target); err != nil {
						return nil, err
					}
					return between.addr, nil
				})
				if between != nil {
					defer between.close()
				}
				if err != nil {
					return err
				}
				defer p.close()
				sending, receiving := p.sides(i)
				go func() { _ = send(ctx, sending, content(i), sizeOf(c, i)) }()
				return receive(ctx, receiving, content(i), sizeOf(c, i), true, func() error {
					return between.sayGoodbye(1000 + uint16(i/2%2))
				})
			})
		})
	}
}

// A peer that does not announce its end in the way of the tunnel's protocol, but
// closes the QUIC connection. QUIC then throws away what was not read (RFC 9000,
// section 10.2).
func TestAQUICConnectionThatIsClosedIsNeverACleanEnd(t *testing.T) {
	ids := newIdentities(t)
	for _, c := range carriers {
		if c.network != "udp" {
			continue // there is no QUIC to close
		}
		inParallel(t, scaled(t, 1000, 100, "rounds"), 8, func(i int) error {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			raw, m, end, err := rawQUIC(ctx, c, ids, i%2 == 0)
			if err != nil {
				return err
			}
			defer end()
			go func() { _ = send(ctx, rawMux{conn: raw}, content(i), sizeOf(c, i)) }()
			return receive(ctx, m, content(i), sizeOf(c, i), false, func() error {
				return raw.CloseWithError(quicgo.ApplicationErrorCode([]uint64{0, 11, 1 << 40}[i/2%3]), "")
			})
		})
	}
}

// rawQUIC makes a connection between a transport of ours and QUIC without it.
func rawQUIC(ctx context.Context, c carrier, ids identities, asAgent bool) (_ *quicgo.Conn, _ transport.Mux, end func(), err error) {
	udp, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return nil, nil, nil, err
	}
	raw := &quicgo.Transport{Conn: udp}
	var closers []func()
	end = func() {
		for _, f := range closers {
			f()
		}
		_ = raw.Close()
		_ = udp.Close()
	}
	defer func() {
		if err != nil {
			end()
		}
	}()
	protocol := func(c *tls.Config) *tls.Config {
		c = c.Clone()
		c.NextProtos, c.ServerName = []string{"outgate/1"}, "127.0.0.1"
		return c
	}
	config := &quicgo.Config{EnableStreamResetPartialDelivery: true, MaxIncomingUniStreams: 1}
	if asAgent {
		l, err := c.listen(ids.gateway)
		if err != nil {
			return nil, nil, nil, err
		}
		closers = append(closers, func() { _ = l.Close() })
		conn, err := raw.Dial(ctx, l.Addr(), protocol(ids.agent), config)
		if err != nil {
			return nil, nil, nil, err
		}
		m, err := l.Accept(ctx)
		if err != nil {
			return nil, nil, nil, err
		}
		closers = append(closers, func() { _ = m.CloseWithError(transport.NoError, "") })
		return conn, m, end, nil
	}
	l, err := raw.Listen(protocol(ids.gateway), config)
	if err != nil {
		return nil, nil, nil, err
	}
	type dialled struct {
		m   transport.Mux
		err error
	}
	dial := make(chan dialled, 1)
	go func() {
		m, err := (&quic.Dialer{TLSClientConfig: ids.agent, Config: quicConfig}).Dial(ctx, urlOf(udp.LocalAddr()))
		dial <- dialled{m, err}
	}()
	conn, err := l.Accept(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	control, err := conn.OpenUniStream()
	if err == nil {
		_, err = control.Write([]byte{1}) // ready
	}
	d := <-dial
	if d.err == nil {
		closers = append(closers, func() { _ = d.m.CloseWithError(transport.NoError, "") })
	}
	if err = errors.Join(err, d.err); err != nil {
		return nil, nil, nil, err
	}
	return conn, d.m, end, nil
}

// rawMux lets send use a QUIC connection.
type rawMux struct {
	transport.Mux
	conn *quicgo.Conn
}

func (m rawMux) OpenStream(ctx context.Context) (transport.Stream, error) {
	s, err := m.conn.OpenStreamSync(ctx)
	return rawStream{Stream: s}, err
}

type rawStream struct{ *quicgo.Stream }

func (rawStream) LocalAddr() net.Addr        { return nil }
func (rawStream) RemoteAddr() net.Addr       { return nil }
func (rawStream) CloseWrite() error          { return nil }
func (rawStream) Reset(transport.Code) error { return nil }

func TestMiddleboxesArePassedUnharmed(t *testing.T) {
	for _, c := range carriers {
		if c.network != "tcp" {
			continue
		}
		ids := newIdentities(t)
		var between *middlebox
		p, err := connect(soon(t), c, ids, func(target net.Addr) (_ net.Addr, err error) {
			if between, err = newMiddlebox(ids, target); err != nil {
				return nil, err
			}
			return between.addr, nil
		})
		require.NoError(t, err)
		for i := range 8 {
			require.NoError(t, closeRound(soon(t), c, p, i, i%2))
		}
		p.close()
		between.close()
	}
}
