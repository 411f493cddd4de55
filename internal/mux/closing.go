package mux

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/outgate/outgate/transport"
)

// CloseWithError implements transport.Mux. What was written before still arrives,
// if the peer takes it within 1.5 seconds.
func (m *Mux) CloseWithError(code transport.Code, reason string) error {
	m.end(&transport.CloseError{Code: code, Reason: cleanReason(reason)})
	<-m.closed
	return nil
}

// ended returns why the connection has ended, or nil.
func (m *Mux) ended() error {
	if cause := m.cause.Load(); cause != nil {
		return cause
	}
	return nil
}

// end ends the connection and all streams; the first cause counts. The rest is
// done behind the back of the caller.
func (m *Mux) end(cause *transport.CloseError) {
	m.mu.Lock()
	if !m.cause.CompareAndSwap(nil, cause) {
		m.mu.Unlock()
		return
	}
	m.cancel(cause)
	streams := make([]*Stream, 0, len(m.streams))
	for _, s := range m.streams {
		streams = append(streams, s)
	}
	m.mu.Unlock()
	for _, s := range streams {
		s.connectionEnded(cause)
	}
	go m.tearDown(cause)
}

// connectionEnded wakes whoever waits. What had arrived can still be read, unless
// this side wants no more of it. It cannot become more, so the budgets get all back
// now, also from a user who never closes the stream.
func (s *Stream) connectionEnded(cause *transport.CloseError) {
	s.mu.Lock()
	if !cause.Remote {
		s.in.drop()
	}
	s.m.unreserve(s.in.reserved)
	s.in.reserved = 0
	s.reader.cond.Broadcast()
	s.mu.Unlock()
	s.out.writer.wake()
}

// tearDown closes the carrier: with a goodbye if this side closes, in bounded time
// in any case.
func (m *Mux) tearDown(cause *transport.CloseError) {
	defer close(m.closed)
	if cause.Remote {
		m.cut()
	}
	cut := time.AfterFunc(closeTimeout, m.cut)
	defer cut.Stop()
	m.sender.end(goAway(cause.Code, cause.Reason))
	// Closed while something is unread, TCP would take back what was sent last.
	// The peer closes when it has the goodbye.
	<-m.read
	m.cut()
}

// cut closes the lowest connection there is, since a goodbye of those above it
// could wait for the peer.
func (m *Mux) cut() {
	conn := m.conn
	for {
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			_ = conn.Close() // whatever it says, it is of no use any more
			return
		}
		conn = above.NetConn()
	}
}

// receive reads the connection to its end, beyond the end of the Mux if this side
// has ended it.
func (m *Mux) receive() {
	defer close(m.read)
	r := &receiver{m: m, conn: m.conn}
	err := r.run()
	cause := m.closeCause(err)
	m.end(cause)
	if cause.Code == transport.Protocol && !cause.Remote {
		r.discardAll()
	}
}

// discardAll reads until the connection is cut, so that a peer that has not
// stopped sending learns why the connection ended.
func (r *receiver) discardAll() {
	for {
		if _, err := r.conn.Read(r.buf[:]); err != nil {
			return
		}
	}
}

// writeFailed ends a connection that takes no data any more. If the peer closed
// it, the receiver is about to learn why, and knows better.
func (m *Mux) writeFailed(err error) {
	m.lost.CompareAndSwap(nil, &err)
	if m.conn.SetReadDeadline(time.Now().Add(closeTimeout)) != nil {
		m.cut()
	}
}

// stuck ends a connection that takes no data in time.
func (m *Mux) stuck() {
	m.end(&transport.CloseError{
		Code:   transport.Timeout,
		Reason: fmt.Sprintf("the network took no data for %v (Config.WriteTimeout)", m.cfg.WriteTimeout),
		Remote: true,
	})
}

// protocolError is what ends a connection whose peer broke the protocol.
func protocolError(err error) *transport.CloseError {
	return &transport.CloseError{Code: transport.Protocol, Reason: cleanReason(err.Error())}
}

// closeCause says why a connection ended, from the error of its receiver.
func (m *Mux) closeCause(err error) *transport.CloseError {
	if cause, ok := errors.AsType[*transport.CloseError](err); ok {
		return cause
	}
	if failed := m.lost.Load(); failed != nil {
		err = *failed
	}
	cause := &transport.CloseError{Code: transport.ConnectionLost, Remote: true}
	if broken, ok := errors.AsType[*net.OpError](err); ok {
		cause.Reason = cleanReason(broken.Err.Error())
	}
	return cause
}

// cleanReason makes a text that came from anywhere fit for a frame and a log: at
// most 120 bytes of printable UTF-8.
func cleanReason(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*maxReason)])
	for len(s) > maxReason {
		_, size := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-size]
	}
	return s
}
