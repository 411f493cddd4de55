package websocket

import (
	"context"
	"errors"
	"fmt"
)

// This file keeps the books of a connection: which streams there are, and how
// many more either side may open.

// takeSlot waits until the peer allows another stream.
func (m *mux) takeSlot(ctx context.Context) error {
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := m.ended(); err != nil {
			return err
		}
		m.mu.Lock()
		if m.opened < m.mayOpen {
			m.opened++
			m.mu.Unlock()
			return nil
		}
		more := m.moreSlots
		m.mu.Unlock()
		select {
		case <-more:
		case <-ctx.Done():
		case <-m.ctx.Done():
		}
	}
}

// forget removes a stream that was closed or reset here, and lets the peer open
// another in its place.
func (m *mux) forget(s *stream) {
	s.mu.Lock()
	grown := int(s.in.window - initialWindow) // it grows no more, being released
	m.growth.Add(int64(grown))
	m.cfg.Budget.shared().Put(grown)
	s.mu.Unlock()

	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.streams, s.id)
	if s.ours {
		return
	}
	m.finished++
	// Half of the limit at a time, so that not every stream costs a message.
	limit := uint64(m.cfg.MaxStreams)
	if m.granted-m.accepted <= limit/2 {
		m.granted = m.finished + limit
		m.sender.grant(m.granted)
	}
}

// The rest is called by the receiver, for what the peer sent.

// lookup returns a stream, or nil if it is over. A stream that never was is an
// error.
func (m *mux) lookup(id uint32) (*stream, error) {
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
		return nil, fmt.Errorf("stream %d was not opened", id)
	}
	return nil, nil
}

// opens admits a stream of the peer, before smux makes it.
func (m *mux) opens(id uint32) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case id != m.nextAccept:
		return fmt.Errorf("opened stream %d, the next is %d", id, m.nextAccept)
	case m.accepted == m.granted:
		return errors.New("opened more streams than allowed")
	}
	m.nextAccept += 2
	m.accepted++
	m.streams[id] = newStream(m, id, false)
	return nil
}

// attach hands a stream of the peer, that smux has made now, to AcceptStream.
func (m *mux) attach(id uint32) error {
	st, err := m.smux.AcceptStream() // at once: it is there, or smux has ended
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.streams[id]
	if s == nil || st.ID() != id {
		return fmt.Errorf("smux accepted stream %d instead of %d", st.ID(), id)
	}
	s.bind(st)
	m.backlog = append(m.backlog, s)
	m.signalArrived()
	return nil
}

// mayOpenUpTo applies the peer's grant of streams.
func (m *mux) mayOpenUpTo(n uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if n > m.mayOpen {
		m.mayOpen = n
		close(m.moreSlots)
		m.moreSlots = make(chan struct{})
	}
}
