package mux

import (
	"errors"
	"fmt"
)

// This file keeps the books of a connection: which streams there are, and how
// many more either side may open.

// addStream makes a stream and gives it what is left of the budgets, so that the
// peer need not wait for its first credit. m.mu is held.
func (m *Mux) addStream(id uint32, ours bool) *Stream {
	s := newStream(m, id, ours)
	s.in.grow(m, startWindow)
	s.in.limit = uint64(s.in.window)
	m.streams[id] = s
	if ours {
		m.sender.open(s, s.in.limit)
	} else {
		m.sender.credit(s, s.in.limit)
	}
	return s
}

// forget removes a stream that was closed or reset here, and lets the peer open
// another in its place.
func (m *Mux) forget(s *Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.streams, s.id)
	if s.ours {
		return
	}
	m.finished++
	// Half of the limit at a time, so that not every stream costs a frame.
	if m.granted-m.accepted <= uint32(m.cfg.MaxStreams/2) {
		m.granted = m.finished + uint32(m.cfg.MaxStreams)
		m.sender.grant(m.granted)
	}
}

// The rest is called by the receiver, for what the peer sent.

// lookup returns a stream, or nil if it is over. A stream that never was is an
// error.
func (m *Mux) lookup(id uint32) (*Stream, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.streams[id]; s != nil {
		return s, nil
	}
	next := m.nextAccept
	if id%2 == m.nextOpen%2 {
		next = m.nextOpen
	}
	if id >= next {
		return nil, fmt.Errorf("was not opened, the next is %d", next)
	}
	return nil, nil
}

// opens takes a stream of the peer.
func (m *Mux) opens(id uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case id != m.nextAccept:
		return fmt.Errorf("OPEN out of turn, the next is %d", m.nextAccept)
	case m.accepted == m.granted:
		return fmt.Errorf("OPEN of one more than the %d streams that STREAMS allows (Config.MaxStreams)", m.granted)
	}
	m.nextAccept += 2
	m.accepted++
	if m.ended() != nil {
		return nil
	}
	m.backlog = append(m.backlog, m.addStream(id, false))
	m.signalArrived()
	return nil
}

// mayOpenUpTo applies the peer's grant of streams.
func (m *Mux) mayOpenUpTo(n uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n <= m.mayOpen {
		return fmt.Errorf("STREAMS of %d after %d", n, m.mayOpen)
	}
	m.mayOpen = n
	if m.moreSlots != nil {
		close(m.moreSlots)
		m.moreSlots = nil
	}
	return nil
}

// lateFrame is what a frame about a stream that is over costs, if it is not DATA.
const lateFrame = 64

// spend counts what arrives for streams that are over. A peer that did not know
// yet cannot have sent more than it had credit for.
func (m *Mux) spend(n int) error {
	if m.late.Add(-int64(n)) < 0 {
		return errors.New("more about streams that are over than they had credit for")
	}
	return nil
}
