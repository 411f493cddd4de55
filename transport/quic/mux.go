package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

// drainTime is how long the end of a connection may take: for the closing side
// to get across what it had accepted, for the other side to read it.
const drainTime = time.Second

// mux is a QUIC connection as a transport.Mux.
//
// One goroutine, run, owns the end: whoever ends the connection, run releases
// the socket and then closes done.
type mux struct {
	conn     *quic.Conn
	endpoint *endpoint
	tls      tls.ConnectionState
	control  *quic.SendStream // the control stream of this side

	ctx    context.Context // ends with the Mux, before the QUIC connection does
	cancel context.CancelCauseFunc
	ended  atomic.Pointer[transport.CloseError]
	done   chan struct{} // nothing is left of the connection

	accepting chan struct{} // a semaphore; see AcceptStream

	mu      sync.Mutex
	streams map[*stream]bool // in use by this side; the value: still read from
	reading int              // how many of them are still read from
	drained chan struct{}    // signal: reading became zero
}

var _ transport.Mux = (*mux)(nil)

// newMux makes a Mux of a connection that finished its handshake. It takes over
// one use of e. run must be called.
func newMux(conn *quic.Conn, e *endpoint, control *quic.SendStream) *mux {
	m := &mux{
		conn:      conn,
		endpoint:  e,
		tls:       conn.ConnectionState().TLS,
		control:   control,
		done:      make(chan struct{}),
		accepting: make(chan struct{}, 1),
		streams:   make(map[*stream]bool),
		drained:   make(chan struct{}, 1),
	}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	return m
}

// run waits for the end of the connection and brings it about when the peer
// announces it. peer is the peer's control stream; nil when it did not open it
// yet.
func (m *mux) run(peer *quic.ReceiveStream) {
	defer close(m.done)
	defer m.endpoint.release()
	goodbye, err := m.awaitGoodbye(peer)
	if err == nil {
		m.drain(goodbye)
	} else if _, ok := errors.AsType[protocolError](err); ok {
		m.abort(&transport.CloseError{Code: transport.Protocol, Reason: cutReason(err.Error())})
	}
	<-m.conn.Context().Done()
	m.end(closeError(context.Cause(m.conn.Context())))
}

// awaitGoodbye returns what the peer says when it closes, or how else the
// connection ended.
func (m *mux) awaitGoodbye(peer *quic.ReceiveStream) (*transport.CloseError, error) {
	if peer == nil {
		var err error
		if peer, err = m.conn.AcceptUniStream(m.conn.Context()); err != nil {
			return nil, err
		}
	}
	kind, err := readType(peer)
	switch {
	case err == io.EOF || isStreamError(err):
		return nil, protocolError("it ended its control stream")
	case err != nil:
		return nil, err
	case kind != messageGoodbye:
		return nil, protocolError("unknown message on the control stream")
	}
	_ = peer.SetReadDeadline(time.Now().Add(drainTime)) // never fails
	goodbye, err := readGoodbye(peer)
	if err != nil && m.conn.Context().Err() == nil {
		return nil, protocolError("a goodbye is cut off")
	}
	return goodbye, err
}

// drain ends this side because the peer said goodbye. What has arrived is read,
// for drainTime at most.
func (m *mux) drain(goodbye *transport.CloseError) {
	// Both sides know by the end. This tells the peer that it need not wait.
	defer func() { _ = m.conn.CloseWithError(0, "") }() // never fails
	if !m.end(goodbye) {
		return // both sides close
	}
	timeout := time.AfterFunc(drainTime, func() { _ = m.conn.CloseWithError(0, "") })
	defer timeout.Stop()
	streams := m.inUse()
	for _, s := range streams {
		s.stopWriting(connectionEnds | quic.StreamErrorCode(goodbye.Code))
	}
	for _, s := range streams {
		if !s.holdsData() {
			m.readOut(s)
		}
	}
	for m.stillReading() {
		select {
		case <-m.drained:
		case <-m.conn.Context().Done():
			return
		}
	}
}

// CloseWithError ends the connection. Calls on this side fail at once; what it
// wrote before still reaches the peer if that takes less than a second, and the
// peer may take as long to read it. CloseWithError returns after that.
func (m *mux) CloseWithError(code transport.Code, reason string) error {
	reason = cutReason(reason)
	if m.end(&transport.CloseError{Code: code, Reason: reason}) {
		m.goodbye(code, reason)
		_ = m.conn.CloseWithError(quic.ApplicationErrorCode(code), reason) // never fails
	}
	<-m.done
	return nil
}

// goodbye announces the end and waits for the peer to close the connection.
// QUIC throws unread data away on both sides when a connection closes, hence the
// side that has something left to read closes it.
func (m *mux) goodbye(code transport.Code, reason string) {
	ctx, cancel := context.WithTimeout(context.Background(), drainTime)
	defer cancel()
	_ = m.control.SetWriteDeadline(time.Now().Add(drainTime)) // never fails
	if _, err := m.control.Write(appendGoodbye(nil, code, reason)); err != nil {
		return
	}
	_ = m.control.Close()
	ends := connectionEnds | quic.StreamErrorCode(code)
	for _, s := range m.inUse() {
		s.abandon(ends)
	}
	m.accepting <- struct{}{} // those who wait in AcceptStream leave, since the Mux ended
	defer func() { <-m.accepting }()
	for {
		q, err := m.conn.AcceptStream(ctx)
		if err != nil {
			return
		}
		q.CancelWrite(ends) // opened by the peer before it knew
		q.CancelRead(ends)
	}
}

// abort ends the connection without a goodbye.
func (m *mux) abort(e *transport.CloseError) {
	m.end(e)
	_ = m.conn.CloseWithError(quic.ApplicationErrorCode(e.Code), e.Reason) // never fails
}

// end makes e the reason of the end and wakes who waits on the context. It
// reports whether e was the first.
func (m *mux) end(e *transport.CloseError) bool {
	if !m.ended.CompareAndSwap(nil, e) {
		return false
	}
	m.cancel(e)
	return true
}

// closeError returns why the Mux ended. err is what the QUIC connection says.
func (m *mux) closeError(err error) *transport.CloseError {
	m.end(closeError(err))
	return m.ended.Load()
}

// peerEnds returns why the Mux ended, for a stream that the peer ended with its
// connection. The goodbye may be behind the stream's end, but not far.
func (m *mux) peerEnds(code transport.Code) *transport.CloseError {
	timeout := time.NewTimer(drainTime)
	defer timeout.Stop()
	select {
	case <-m.ctx.Done():
	case <-timeout.C:
		m.abort(&transport.CloseError{Code: code, Remote: true})
	}
	return m.ended.Load()
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
	if e := m.ended.Load(); e != nil {
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
	m.streams[s] = true
	m.reading++
	m.mu.Unlock()
	// The end looks at the streams after it has set ended, so one of the two
	// sees the other.
	if e := m.ended.Load(); e != nil {
		s.abandon(connectionEnds | quic.StreamErrorCode(e.Code))
		m.forget(s)
		return nil, e
	}
	return s, nil
}

// readOut notes that nothing more will be read from s.
func (m *mux) readOut(s *stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[s] {
		m.streams[s] = false
		m.stopReading()
	}
}

// forget notes that this side has ended s.
func (m *mux) forget(s *stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.streams[s] {
		m.stopReading()
	}
	delete(m.streams, s)
}

// stopReading is called with mu held.
func (m *mux) stopReading() {
	m.reading--
	if m.reading == 0 {
		select {
		case m.drained <- struct{}{}:
		default:
		}
	}
}

func (m *mux) stillReading() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.reading > 0
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

func isStreamError(err error) bool {
	_, ok := errors.AsType[*quic.StreamError](err)
	return ok
}
