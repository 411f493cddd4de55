package mux

import (
	"errors"
	"time"
)

// pinger measures the round trip and answers the peer's measurements. The lock of
// the sender guards it. Each side has one PING without an answer at most, so a
// peer cannot make this one remember many.
type pinger struct {
	owed   bool // a PONG with answer
	answer uint64

	wanted  bool          // a PING
	waiting bool          // for the PONG with seq
	seq     uint64        // of the last PING
	at      time.Duration // when it was sent, in the time of the Mux
}

func (p *pinger) pending() bool { return p.owed || p.wanted && !p.waiting }

// frames appends what is pending.
func (p *pinger) frames(b *batch, now func() time.Duration) *batch {
	if p.owed {
		p.owed = false
		b = b.control(framePong, 0, p.answer)
	}
	if p.wanted && !p.waiting {
		p.wanted, p.waiting = false, true
		p.seq++
		p.at = now()
		b = b.control(framePing, 0, p.seq)
	}
	return b
}

// measure asks for a new measurement if the last is older than a second.
func (w *sender) measure() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.m.now()-w.ping.at > time.Second {
		w.ping.wanted = true
	}
}

// pinged answers a PING.
func (w *sender) pinged(seq uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ping.owed {
		return errors.New("a PING before the PONG for the last")
	}
	w.ping.owed, w.ping.answer = true, seq
	return nil
}

// ponged returns the round trip of the PING that was answered.
func (w *sender) ponged(seq uint64) (time.Duration, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ping.waiting || seq != w.ping.seq {
		return 0, errors.New("a PONG for no PING")
	}
	w.ping.waiting = false
	return w.m.now() - w.ping.at, nil
}
