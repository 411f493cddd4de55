package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

// mux is a QUIC connection as a transport.Mux. How it ends is in ending.go.
type mux struct {
	conn     *quic.Conn
	endpoint *endpoint
	tls      tls.ConnectionState
	control  *quic.SendStream // the control stream of this side
	idle     time.Duration    // how long the peer may be silent
	window   int              // the most that a stream holds

	ctx    context.Context // ends with the Mux, before the QUIC connection does; see ended
	cancel context.CancelCauseFunc
	done   chan struct{} // nothing is left of the connection

	accepting chan struct{} // a semaphore; see AcceptStream

	leaving   sync.Mutex   // held while streams are asked to take over what has arrived
	keeping   atomic.Bool  // the streams take over what has arrived; see stream.takeOver
	keepUntil time.Time    // until then more may arrive; set before keeping
	keepable  atomic.Int64 // how many bytes they may take, all together

	mu      sync.Mutex
	streams map[*stream]struct{} // in use by this side
}

var _ transport.Mux = (*mux)(nil)

// newMux makes a Mux of a connection that finished its handshake. It takes over
// one use of e. run must be called.
func newMux(conn *quic.Conn, e *endpoint, control *quic.SendStream, limits *quic.Config) *mux {
	m := &mux{
		conn:      conn,
		endpoint:  e,
		tls:       conn.ConnectionState().TLS,
		control:   control,
		idle:      limits.MaxIdleTimeout / idleMargin,
		window:    int(limits.MaxStreamReceiveWindow), //nolint:gosec // it was an int in Config
		done:      make(chan struct{}),
		accepting: make(chan struct{}, 1),
		streams:   make(map[*stream]struct{}),
	}
	m.keepable.Store(int64(limits.MaxConnectionReceiveWindow)) //nolint:gosec // as above
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	e.add(m)
	return m
}

// OpenStream opens a stream. At the peer's limit it waits until the peer has
// ended one.
func (m *mux) OpenStream(ctx context.Context) (transport.Stream, error) {
	if err := m.stopped(ctx); err != nil {
		return nil, err
	}
	q, err := m.conn.OpenStream()
	if _, full := errors.AsType[*quic.StreamLimitReachedError](err); full {
		waiting, cancel := m.bound(ctx)
		q, err = m.conn.OpenStreamSync(waiting)
		cancel()
	}
	if err != nil {
		return nil, m.failure(ctx, err)
	}
	return m.newStream(&stream{q: q, mux: m})
}

// AcceptStream returns the next stream that the peer opened. Streams that wait
// for it count against [Config.MaxStreams].
func (m *mux) AcceptStream(ctx context.Context) (transport.Stream, error) {
	// One at a time: of two waiters that the library has between checking for a
	// stream and going to sleep, one can miss its stream.
	select {
	case m.accepting <- struct{}{}:
		defer func() { <-m.accepting }()
	case <-ctx.Done():
	case <-m.ctx.Done():
	}
	if err := m.stopped(ctx); err != nil {
		return nil, err
	}
	waiting, cancel := m.bound(ctx)
	q, err := m.conn.AcceptStream(waiting)
	cancel()
	if err != nil {
		return nil, m.failure(ctx, err)
	}
	return m.newStream(&stream{q: q, mux: m, known: true})
}

// bound returns a ctx that ends with the Mux, too.
func (m *mux) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(m.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
	}
}

// stopped returns why a call must not begin.
func (m *mux) stopped(ctx context.Context) error {
	if e := m.ended(); e != nil {
		return e
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return nil
}

// failure translates the error of a call that ctx bounded.
func (m *mux) failure(ctx context.Context, err error) error {
	if stopped := m.stopped(ctx); stopped != nil {
		return stopped
	}
	return m.closeError(err)
}

func (m *mux) newStream(s *stream) (transport.Stream, error) {
	m.mu.Lock()
	m.streams[s] = struct{}{}
	m.mu.Unlock()
	// The end looks at the streams after it has ended ctx, so one of the two
	// sees the other.
	if e := m.ended(); e != nil {
		s.abandon(connectionEnds | quic.StreamErrorCode(e.Code))
		m.forget(s)
		return nil, e
	}
	return s, nil
}

// forget notes that this side has ended s.
func (m *mux) forget(s *stream) {
	m.mu.Lock()
	delete(m.streams, s)
	m.mu.Unlock()
}

func (m *mux) inUse() []*stream {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]*stream, 0, len(m.streams))
	for s := range m.streams {
		all = append(all, s)
	}
	return all
}

// ConnectionState is the TLS state of the connection.
func (m *mux) ConnectionState() tls.ConnectionState { return m.tls }

// LocalAddr is the address of the UDP socket.
func (m *mux) LocalAddr() net.Addr { return m.conn.LocalAddr() }

// RemoteAddr is the UDP address of the peer.
func (m *mux) RemoteAddr() net.Addr { return m.conn.RemoteAddr() }

// Context ends when the connection ends. Its cause is a *transport.CloseError.
func (m *mux) Context() context.Context { return m.ctx }
