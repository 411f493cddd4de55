package mem

import (
	"context"
	"crypto/tls"
	"net"
	"strings"

	"github.com/outgate/outgate/transport"
)

const maxReason = 120 // bytes; transport.Mux allows as many

var _ transport.Mux = (*Mux)(nil)

// Mux is one side of a connection. [Dialer.Dial] and [Listener.Accept] return
// it; tests that break connections convert to it:
//
//	agent.(*mem.Mux).Cut()
//
// A Mux owns no goroutine and no timer. All methods may be called concurrently.
type Mux struct {
	link          *link
	peer          *Mux
	local, remote addr
	tls           tls.ConnectionState
	ctx           context.Context
	cancel        context.CancelCauseFunc

	// link.mu guards the rest.
	streams  map[*stream]struct{} // not yet ended by this side
	opened   int                  // by this side, not yet ended by both
	slots    signal               // opened fell
	incoming []*stream            // waiting for AcceptStream
	arrived  signal               // incoming grew
	ended    *transport.CloseError
}

func newMux(l *link, local, remote addr, state tls.ConnectionState) *Mux {
	m := &Mux{link: l, local: local, remote: remote, tls: state, streams: make(map[*stream]struct{})}
	m.ctx, m.cancel = context.WithCancelCause(context.Background())
	return m
}

// OpenStream opens a stream. The peer sees it when this side first writes to it
// or ends it. It waits while Listener.MaxStreams streams of this side are open;
// a stream is open until both sides have closed or reset it.
func (m *Mux) OpenStream(ctx context.Context) (transport.Stream, error) {
	for {
		s, changed, err := m.tryOpen(ctx)
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *Mux) tryOpen(ctx context.Context) (*stream, <-chan struct{}, error) {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	switch {
	case m.ended != nil:
		return nil, nil, m.ended
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case m.opened >= m.link.config.maxStreams:
		return nil, m.slots.wait(), nil
	}
	s := newStream(m)
	m.opened++
	m.streams[s] = struct{}{}
	return s, nil, nil
}

// AcceptStream returns the next stream that the peer opened.
func (m *Mux) AcceptStream(ctx context.Context) (transport.Stream, error) {
	for {
		s, changed, err := m.tryAccept(ctx)
		if err != nil {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
}

func (m *Mux) tryAccept(ctx context.Context) (*stream, <-chan struct{}, error) {
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	switch {
	case m.ended != nil:
		return nil, nil, m.ended
	case ctx.Err() != nil:
		return nil, nil, context.Cause(ctx)
	case len(m.incoming) == 0:
		return nil, m.arrived.wait(), nil
	}
	s := m.incoming[0]
	m.incoming[0] = nil
	m.incoming = m.incoming[1:]
	return s, nil, nil
}

// enqueue takes a stream that the peer opened. The caller holds link.mu.
func (m *Mux) enqueue(s *stream) {
	if m.ended != nil {
		return
	}
	m.streams[s] = struct{}{}
	m.incoming = append(m.incoming, s)
	m.arrived.notify()
}

// ConnectionState is that of a finished TLS 1.3 handshake. The certificate of
// the peer is made up from its name; see the package comment.
func (m *Mux) ConnectionState() tls.ConnectionState { return m.tls }

// LocalAddr is the address of this side. Its network is "mem".
func (m *Mux) LocalAddr() net.Addr { return m.local }

// RemoteAddr is the address of the peer. Its network is "mem".
func (m *Mux) RemoteAddr() net.Addr { return m.remote }

// Context ends when the connection ends. Its cause is a *transport.CloseError.
func (m *Mux) Context() context.Context { return m.ctx }

// CloseWithError ends the connection on both sides, or on this side alone while
// the connection is frozen. What this side has not read is dropped; the peer can
// still read what arrived before. It never fails.
func (m *Mux) CloseWithError(code transport.Code, reason string) error {
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	m.link.mu.Lock()
	defer m.link.mu.Unlock()
	if m.ended != nil {
		return nil
	}
	m.end(&transport.CloseError{Code: code, Reason: reason})
	m.link.deliver(func() {
		m.peer.end(&transport.CloseError{Code: code, Reason: reason, Remote: true})
	})
	return nil
}

// Cut breaks the connection. Both sides end at once with the code
// ConnectionLost and Remote set. Streams give out what had arrived, then that
// error; io.EOF only if the peer's end had arrived as well.
func (m *Mux) Cut() { m.link.cut() }

// Freeze stops the connection in both directions without ending it: nothing
// arrives any more, and neither side gets an error for that. Writes succeed until
// the window of their stream is full.
func (m *Mux) Freeze() { m.link.freeze() }

// Thaw ends a Freeze. What was sent meanwhile arrives, in order.
func (m *Mux) Thaw() { m.link.thaw() }

// end ends this side of the connection. The caller holds link.mu.
func (m *Mux) end(cause *transport.CloseError) {
	if m.ended != nil {
		return
	}
	m.ended = cause
	m.cancel(cause) // before anyone wakes up and looks at the context
	for s := range m.streams {
		if !cause.Remote {
			s.received = ring{}
		}
		s.wake()
	}
	m.streams, m.incoming = nil, nil
	m.slots.notify()
	m.arrived.notify()
	m.link.leave()
}
