package quic

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/outgate/outgate/transport"
)

// drainTime is how long the end of a connection may take: for the closing side
// to get across what it had accepted, for the other side to receive it.
const drainTime = time.Second

const whySilent = "the peer fell silent"

// run waits for the end of the connection and brings it about when the peer
// announces it. It owns the end: whoever ends the connection, run releases the
// socket and then closes done. peer is the peer's control stream; nil when it did
// not open it yet.
func (m *mux) run(peer *quic.ReceiveStream) {
	defer close(m.done)
	defer m.endpoint.remove(m)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(m.watch)
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

// drain ends this side because the peer said goodbye. Its streams take over what
// has arrived and what is under way.
func (m *mux) drain(goodbye *transport.CloseError) {
	// Both sides know by the end. This tells the peer that it need not wait.
	defer func() { _ = m.conn.CloseWithError(0, "") }() // never fails
	m.leaving.Lock()
	defer m.leaving.Unlock()
	if !m.end(goodbye) {
		return // both sides close
	}
	for _, s := range m.inUse() {
		s.stopWriting(connectionEnds | quic.StreamErrorCode(goodbye.Code))
	}
	m.keep(time.Now().Add(drainTime))
}

// watch ends the connection when the peer has been silent for too long. The QUIC
// implementation would, too, but with it goes what nobody has read yet.
func (m *mux) watch() {
	look := time.NewTicker(m.idle / 8)
	defer look.Stop()
	heard, packets := time.Now(), uint64(0)
	for {
		select {
		case <-m.conn.Context().Done():
			return
		case now := <-look.C:
			if n := m.conn.ConnectionStats().PacketsReceived; n != packets {
				heard, packets = now, n
			}
			if now.Sub(heard) < m.idle {
				continue
			}
		}
		silent := &transport.CloseError{Code: transport.Timeout, Reason: whySilent, Remote: true}
		m.lose(silent)
		_ = m.conn.CloseWithError(quic.ApplicationErrorCode(silent.Code), silent.Reason) // never fails
		return
	}
}

// lose ends this side because the peer cannot be reached. The caller ends the
// QUIC connection.
func (m *mux) lose(e *transport.CloseError) {
	m.leaving.Lock() // who comes second goes on to end the connection, and waits for the first
	defer m.leaving.Unlock()
	if m.end(e) {
		m.keep(time.Now())
	}
}

// keep lets every stream take over what has arrived, and what arrives until then.
func (m *mux) keep(until time.Time) {
	m.keepUntil = until
	m.keeping.Store(true)
	var streams sync.WaitGroup
	for _, s := range m.inUse() {
		streams.Go(s.keep)
	}
	streams.Wait()
}

// CloseWithError ends the connection. Calls on this side fail at once; what it
// wrote before still reaches the peer if that takes less than a second, and the
// peer may take as long to read it. CloseWithError returns after that. It waits for
// half as long with [transport.Timeout], since the peer is probably not there.
func (m *mux) CloseWithError(code transport.Code, reason string) error {
	reason = cutReason(reason)
	if m.end(&transport.CloseError{Code: code, Reason: reason}) {
		patience := drainTime
		if code == transport.Timeout {
			patience /= 2
		}
		m.goodbye(code, reason, patience)
		_ = m.conn.CloseWithError(quic.ApplicationErrorCode(code), reason) // never fails
	}
	<-m.done
	return nil
}

// goodbye announces the end and waits for the peer to close the connection.
// QUIC throws unread data away on both sides when a connection closes, hence the
// side that has something left to read closes it.
func (m *mux) goodbye(code transport.Code, reason string, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = m.control.SetWriteDeadline(time.Now().Add(patience)) // never fails
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
	m.cancel(e)
	return m.ended() == e
}

// ended returns why the Mux ended, nil if it did not. The context is the one place
// that knows, so that no call can tell of an end before the context does.
func (m *mux) ended() *transport.CloseError {
	if m.ctx.Err() == nil { // does not lock
		return nil
	}
	e, _ := errors.AsType[*transport.CloseError](context.Cause(m.ctx)) // end gives it no other
	return e
}

// closeError returns why the Mux ended. err is what the QUIC connection says.
func (m *mux) closeError(err error) *transport.CloseError {
	m.end(closeError(err))
	return m.ended()
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
	return m.ended()
}

func isStreamError(err error) bool {
	_, ok := errors.AsType[*quic.StreamError](err)
	return ok
}
