package mux

import (
	"errors"
	"fmt"
	"time"
)

// inbound is the direction of a stream toward this side: what has arrived, and
// how much more may. Stream.mu guards it.
type inbound struct {
	head, tail *chunk
	users      int  // who copies into or out of chunks without the lock
	dropped    bool // nobody reads any more; the last user frees the chunks

	received uint64 // bytes
	consumed uint64 // bytes that were read
	limit    uint64 // what received may reach, as the peer knows
	window   int    // how far limit is to be ahead of consumed
	reserved int    // bytes of the budgets
	ended    bool   // received is all there will ever be

	since     time.Duration // when the measurement of the reader began, in the time of the Mux
	sinceUsed uint64        // and consumed at that time
}

// arrives checks a DATA frame of n bytes before its payload is read.
func (in *inbound) arrives(n int) error {
	if in.ended {
		return errors.New("DATA after END")
	}
	if in.received+uint64(n) > in.limit {
		return fmt.Errorf("DATA up to byte %d, the credit ends at %d (Config.MaxWindow)", in.received+uint64(n), in.limit)
	}
	return nil
}

// end records the peer's end of the direction.
func (in *inbound) end(total uint64) error {
	if in.ended {
		return errors.New("a second END")
	}
	if total != in.received {
		return fmt.Errorf("END after %d bytes, but %d arrived", total, in.received)
	}
	in.ended = true
	return nil
}

// complete reports whether everything was read up to the end.
func (in *inbound) complete() bool { return in.ended && in.consumed == in.received }

// space returns a piece of memory for up to n bytes that arrive, which belongs to
// the caller until filled.
func (in *inbound) space(n int) []byte {
	in.users++
	if in.tail == nil || in.tail.w == len(in.tail.buf) {
		// A stream that has much unread gets larger chunks for what comes in
		// small frames.
		c := newChunk(max(n, min(int(in.received-in.consumed), 1<<largestChunk)))
		if in.tail == nil {
			in.head = c
		} else {
			in.tail.next = c
		}
		in.tail = c
	}
	return in.tail.buf[in.tail.w:min(in.tail.w+n, len(in.tail.buf))]
}

// filled says that the first n bytes of the space are data.
func (in *inbound) filled(n int) {
	in.tail.w += n
	in.received += uint64(n)
	in.leave()
}

// unread returns what can be read in one piece, which belongs to the caller until
// consume. It is empty if there is nothing.
func (in *inbound) unread() []byte {
	for {
		c := in.head
		if c == nil || c.r < c.w {
			break
		}
		if in.users > 0 && c == in.tail { // it is being filled
			return nil
		}
		in.next()
	}
	if in.head == nil {
		return nil
	}
	in.users++
	return in.head.buf[in.head.r:in.head.w]
}

// next frees the first chunk.
func (in *inbound) next() {
	c := in.head
	if in.head = c.next; in.head == nil {
		in.tail = nil
	}
	c.free()
}

// consume says that the first n bytes of what unread returned were read.
func (in *inbound) consume(n int) {
	in.consumed += uint64(n)
	c := in.head
	c.r += n
	in.leave()
	if !in.dropped && c.r == c.w && (c != in.tail || in.users == 0) {
		in.next()
	}
}

// drop frees everything, now or when nobody uses it any more.
func (in *inbound) drop() {
	in.users++
	in.dropped = true
	in.leave()
}

func (in *inbound) leave() {
	in.users--
	for in.dropped && in.users == 0 && in.head != nil {
		in.next()
	}
}

// raise returns the limit that the peer should be told now, if it should be told.
// It looks at how fast the reader is, and lets the window grow or shrink.
func (in *inbound) raise(m *Mux) (limit uint64, tell bool) {
	if in.ended {
		return 0, false
	}
	due := uint64(max(in.window/4, leastRaise))
	if in.consumed+uint64(in.window) < in.limit+due {
		return 0, false
	}
	in.adapt(m)
	if in.consumed+uint64(in.window) < in.limit+leastRaise {
		return 0, false // it has shrunk
	}
	in.limit = in.consumed + uint64(in.window)
	return in.limit, true
}

// adapt changes the window: one that a reader uses up within four round trips
// makes the peer wait part of the time, one of which it has not used half in a
// second is of no use. Each measurement covers half a window at least.
func (in *inbound) adapt(m *Mux) {
	used := in.consumed - in.sinceUsed
	if in.since != 0 && used < uint64(in.window/2) {
		return
	}
	m.sender.measure()
	now := m.now()
	took, first := now-in.since, in.since == 0
	in.since, in.sinceUsed = now, in.consumed
	switch rtt := m.roundTrip(); {
	case first:
	case took.Seconds()*float64(in.window) < 4*rtt.Seconds()*float64(used):
		in.grow(m, 2*in.window)
	case took > time.Second && took > 16*rtt:
		in.shrink(m, in.window/2)
	}
}

// grow makes the window larger where the budgets allow.
func (in *inbound) grow(m *Mux, to int) {
	to = min(to, m.cfg.MaxWindow)
	if to > in.window && m.ended() == nil && m.reserve(to-in.window) {
		in.reserved += to - in.window
		in.window = to
	}
}

// shrink makes the window smaller. What the peer was granted it keeps; the
// budgets get back what is not granted any more.
func (in *inbound) shrink(m *Mux, to int) {
	in.window = max(to, min(in.window, startWindow))
	if m.budget.scarce(m.cfg.WindowBudget) {
		in.window = max(to, leastWindow)
	}
	needed := max(in.window, int(in.limit-in.consumed)) - leastWindow
	if needed < in.reserved {
		m.unreserve(in.reserved - needed)
		in.reserved = needed
	}
}
