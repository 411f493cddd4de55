package quic

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

const (
	defaultBacklog       = 128
	defaultMaxHandshakes = 1024
	defaultMaxPerSource  = 32
	defaultRetryAbove    = 64
)

// ListenConfig configures a [Listener]. The zero value is ready for use.
type ListenConfig struct {
	// Config limits each connection.
	Config Config

	// HandshakeTimeout is how long a handshake may take. A peer that is silent
	// for half of it loses its place, too. Zero means 5 s.
	HandshakeTimeout time.Duration

	// MaxHandshakes is how many handshakes may be under way: connections that have
	// not shown a good certificate yet. Further clients are refused until one has
	// ended. Zero means 1024.
	MaxHandshakes int

	// MaxHandshakesPerSource is how many of them may come from one IPv4 address or
	// one IPv6 network of 64 bits. Agents behind one address translator share it; a
	// refused one tries again after its backoff. Zero means 32.
	MaxHandshakesPerSource int

	// RetryAbove is how many handshakes may be under way with clients that have
	// not proven yet that they receive at the address they send from. Further
	// clients have to prove it first, which costs them one round trip and keeps
	// forged packets from using up MaxHandshakes. For one source it is at a quarter
	// of MaxHandshakesPerSource, if that is less. Zero means 64, a negative value
	// that every client has to.
	RetryAbove int

	// Backlog is how many authenticated connections may wait for Accept. Further
	// ones are closed with the code Overloaded. Zero means 128.
	Backlog int

	// Logger gets a debug line for each handshake that fails. Nil is silent.
	Logger *slog.Logger
}

// Listener accepts connections on one UDP socket. All methods may be called
// concurrently.
type Listener struct {
	quic     *quic.Listener
	endpoint *endpoint
	gate     *gate
	limits   *quic.Config
	waiting  chan *mux

	mu      sync.Mutex    // held to add to waiting and to close closing
	closing chan struct{} // closed by Close

	stopped chan struct{} // closed when serve has returned
	err     error         // why; read it after stopped
}

var _ transport.Listener = (*Listener)(nil)

// Listen listens on a UDP address such as ":443" or "192.0.2.1:443". tlsConfig
// holds the gateway's certificate, and in ClientCAs who may vouch for agents; it
// is not modified. Whatever it says, a client certificate is demanded and
// verified, the version is TLS 1.3, the ALPN protocol is "outgate/1" and there
// are no session tickets; so, too, for what its GetConfigForClient returns.
func Listen(addr string, tlsConfig *tls.Config, config ListenConfig) (*Listener, error) {
	udp, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, fmt.Errorf("quic: listen: %w", err)
	}
	socket, err := net.ListenUDP("udp", udp)
	if err != nil {
		return nil, fmt.Errorf("quic: listen: %w", err)
	}
	l, err := ListenPacket(socket, tlsConfig, config)
	if err != nil {
		_ = socket.Close() // the first error says more
		return nil, err
	}
	return l, nil
}

// ListenPacket is [Listen] on an existing socket. If it returns no error the
// socket belongs to the Listener, which closes it after the last connection.
// Batched system calls, congestion marks and the search for the largest packet
// size need a *net.UDPConn.
func ListenPacket(socket net.PacketConn, tlsConfig *tls.Config, c ListenConfig) (*Listener, error) {
	if c.HandshakeTimeout < 0 || c.MaxHandshakes < 0 || c.MaxHandshakesPerSource < 0 || c.Backlog < 0 {
		return nil, fmt.Errorf("quic: a limit of ListenConfig is negative; leave it zero for its default")
	}
	ours, err := serverTLS(tlsConfig)
	if err != nil {
		return nil, err
	}
	limits, err := c.Config.quic(cmp.Or(c.HandshakeTimeout, defaultHandshakeTimeout))
	if err != nil {
		return nil, err
	}
	l := &Listener{
		endpoint: newEndpoint(socket),
		gate: &gate{
			log:          cmp.Or(c.Logger, slog.New(slog.DiscardHandler)),
			retryAbove:   cmp.Or(c.RetryAbove, defaultRetryAbove),
			max:          cmp.Or(c.MaxHandshakes, defaultMaxHandshakes),
			maxPerSource: cmp.Or(c.MaxHandshakesPerSource, defaultMaxPerSource),
			sources:      make(map[netip.Prefix]*source),
		},
		limits:  limits,
		waiting: make(chan *mux, cmp.Or(c.Backlog, defaultBacklog)),
		closing: make(chan struct{}),
		stopped: make(chan struct{}),
	}
	l.endpoint.settled.Store(true)
	l.endpoint.transport.VerifySourceAddress = l.gate.validate
	l.endpoint.transport.ConnContext = l.gate.enter
	l.quic, err = l.endpoint.transport.Listen(ours, limits)
	if err != nil {
		return nil, fmt.Errorf("quic: listen: %w", err)
	}
	l.endpoint.closed = func() {
		<-l.stopped
		l.gate.attempts.Wait()
	}
	go l.serve()
	return l, nil
}

// serve moves connections from the library's short queue into ours. It lives as
// long as the socket: a closed Listener still has to refuse.
func (l *Listener) serve() {
	defer close(l.stopped)
	for {
		conn, err := l.quic.Accept(context.Background())
		if err != nil {
			l.err = err
			return
		}
		l.gate.succeeded(conn)
		if code, why := l.enqueue(conn); code != transport.NoError {
			_ = conn.CloseWithError(quic.ApplicationErrorCode(code), why) // never fails
		}
	}
}

const whyClosed = "the listener is closed"

// enqueue hands conn to Accept, or says why it cannot.
func (l *Listener) enqueue(conn *quic.Conn) (transport.Code, string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.isClosed() {
		return transport.Draining, whyClosed
	}
	if len(l.waiting) == cap(l.waiting) {
		return transport.Overloaded, "too many connections wait to be accepted"
	}
	control, err := conn.OpenUniStream()
	if err != nil {
		return transport.Protocol, "no control stream"
	}
	if _, err := control.Write([]byte{messageReady}); err != nil { // one byte does not block
		return transport.Protocol, "no control stream"
	}
	l.endpoint.hold()
	m := newMux(conn, l.endpoint, control, l.limits)
	go m.run(nil)
	l.waiting <- m
	return transport.NoError, ""
}

// Accept returns the next authenticated connection. One that ended while it
// waited is passed over.
func (l *Listener) Accept(ctx context.Context) (transport.Mux, error) {
	for {
		if err := l.refusal(ctx); err != nil {
			return nil, err
		}
		select {
		case m := <-l.waiting:
			if m.ctx.Err() == nil {
				return m, nil
			}
		case <-ctx.Done():
		case <-l.closing:
		case <-l.stopped:
		}
	}
}

// refusal returns why Accept must not go on.
func (l *Listener) refusal(ctx context.Context) error {
	switch {
	case l.isClosed():
		return fmt.Errorf("quic: accept: %w", net.ErrClosed)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	select {
	case <-l.stopped:
		return fmt.Errorf("quic: accept: the socket failed: %w", l.err)
	default:
		return nil
	}
}

func (l *Listener) isClosed() bool {
	select {
	case <-l.closing:
		return true
	default:
		return false
	}
}

// Addr is the address of the UDP socket.
func (l *Listener) Addr() net.Addr { return l.endpoint.socket.LocalAddr() }

// Close stops accepting. Connections that were not accepted end with the code
// Draining; accepted ones live on, and with them the socket, on which new
// clients are refused. Close returns within seconds, whatever the peers do. It
// never fails.
func (l *Listener) Close() error {
	l.mu.Lock()
	first := !l.isClosed()
	if first {
		close(l.closing)
	}
	l.mu.Unlock()
	if first {
		l.gate.close()
		l.endWaiting()
		l.endpoint.release()
	}
	return nil
}

func (l *Listener) endWaiting() {
	var ending sync.WaitGroup
	defer ending.Wait()
	for {
		select {
		case m := <-l.waiting:
			ending.Go(func() { _ = m.CloseWithError(transport.Draining, whyClosed) }) // never fails
		default:
			return
		}
	}
}
