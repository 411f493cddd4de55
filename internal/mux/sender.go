package mux

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/outgate/outgate/transport"
)

// queueLimit is how much data may wait behind a Write to the connection. When it
// is reached, streams stand in line. It is small because everything that waits
// there delays what comes after it.
const queueLimit = 64 << 10

// smallWrite is the most that a Write may send to stand in the shorter line.
const smallWrite = 2 << 10

// maxFrame is the most data of one stream before it is the turn of another.
const maxFrame = 32 << 10

// sender holds what is to be sent. Everything appends to it under its lock and
// without waiting; who has appended calls flush when it holds no lock any more.
type sender struct {
	m      *Mux
	conn   net.Conn
	corker Corker        // below conn, or nil
	done   chan struct{} // closed when nothing will be written any more

	running func() // is run; a go statement with a method would allocate

	mu      sync.Mutex
	busy    bool   // somebody writes, and will look again before he stops
	ending  bool   // nothing is accepted any more
	dead    bool   // everything is written, or will not be
	goodbye []byte // the last frame, once everything else is written

	urgent  *batch    // goes before the queue
	queue   *batch    // in the order in which it was sent
	credits []*Stream // whose limit waits in out.credit
	small   []*Stream // whose data waits in out.offer and is short
	large   []*Stream // whose data waits in out.offer and is not
	streams uint32    // the last grant of streams, to be sent if not 0
	ping    pinger

	watchdog *time.Timer
}

func newSender(m *Mux) *sender {
	w := &sender{m: m, conn: m.conn, done: make(chan struct{})}
	w.running = w.run
	conn := m.conn
	for {
		if c, ok := conn.(Corker); ok {
			w.corker = c
			return w
		}
		above, ok := conn.(interface{ NetConn() net.Conn })
		if !ok {
			return w
		}
		conn = above.NetConn()
	}
}

// pending reports whether there is anything to write.
func (w *sender) pending() bool {
	return w.urgent.len() > 0 || w.queue.len() > 0 || len(w.credits) > 0 || w.streams > 0 ||
		len(w.small) > 0 || len(w.large) > 0 || w.ping.pending()
}

// take returns what is to be written next, or nil if that is nothing.
func (w *sender) take() *batch {
	w.control()
	b := w.queue
	w.queue = nil
	switch {
	case w.urgent == nil:
	case b != nil && b.prepend(w.urgent.frames()):
		w.urgent.recycle()
		w.urgent = nil
	default: // alone, and before what is queued
		w.queue = b
		b = w.urgent
		w.urgent = b.split(maxBatch)
	}
	// What is short goes first, so that a question does not wait for hundreds
	// of transfers; but one of those goes on each time.
	for len(w.small) > 0 && w.queue.len() < queueLimit {
		w.small = w.takeOffer(w.small)
	}
	for first := true; len(w.large) > 0 && (first || w.queue.len() < queueLimit); first = false {
		w.large = w.takeOffer(w.large)
	}
	if b == nil {
		b, w.queue = w.queue, nil
	}
	if b == nil && w.goodbye != nil {
		b = newBatch(len(w.goodbye))
		b.buf = append(b.buf, w.goodbye...)
		w.goodbye = nil
	}
	return b
}

// control makes frames of what is kept as a value until it is sent.
func (w *sender) control() {
	if w.streams > 0 {
		w.urgent = w.urgent.control(frameStreams, 0, uint64(w.streams))
		w.streams = 0
	}
	w.urgent = w.ping.frames(w.urgent, w.m.now)
	for _, s := range w.credits {
		if !s.out.closed && s.out.failed == nil {
			w.urgent = w.urgent.control(frameCredit, s.id, s.out.credit)
		}
		s.out.credit = 0
	}
	clear(w.credits)
	w.credits = w.credits[:0]
	if cap(w.credits) > 16 {
		w.credits = nil
	}
}

// takeOffer puts a frame of the first offer of a line into the queue and returns
// the line, with the stream at its end if there is more.
func (w *sender) takeOffer(line []*Stream) []*Stream {
	s := line[0]
	line = slices.Delete(line, 0, 1)
	o := &s.out
	if n := o.allowed(len(o.offer)); n > 0 {
		w.queue = w.queue.data(s.id, o.offer[:n])
		o.sent += uint64(n)
		o.offer = o.offer[n:]
	}
	switch {
	case len(o.offer) == 0:
		o.writer.cond.Broadcast()
	case o.allowed(1) > 0:
		return append(line, s)
	}
	o.inLine = false
	return line
}

// standInLine puts a stream with an offer into its line, if its peer gives credit.
func (w *sender) standInLine(s *Stream) {
	o := &s.out
	if o.inLine || len(o.offer) == 0 || o.allowed(1) == 0 {
		return
	}
	o.inLine = true
	if len(o.offer) <= smallWrite {
		w.small = append(w.small, s)
	} else {
		w.large = append(w.large, s)
	}
}

// leaveLine takes a stream out of its line.
func (w *sender) leaveLine(s *Stream) {
	if s.out.inLine {
		s.out.inLine = false
		is := func(x *Stream) bool { return x == s }
		w.small = slices.DeleteFunc(w.small, is)
		w.large = slices.DeleteFunc(w.large, is)
	}
}

// full reports whether data has to stand in line.
func (w *sender) full() bool {
	return w.queue.len() >= queueLimit || len(w.small)+len(w.large) > 0
}

// overtake sends a frame before data that waits.
func (w *sender) overtake(t frameType, stream uint32, v uint64) {
	if !w.ending {
		w.urgent = w.urgent.control(t, stream, v)
	}
}

// inOrder sends a frame behind what was sent before.
func (w *sender) inOrder(t frameType, stream uint32, v uint64) {
	if !w.ending {
		w.queue = w.queue.control(t, stream, v)
	}
}

// open announces a stream and gives it credit. Nobody need flush it: the frames
// wait for what the stream says first.
func (w *sender) open(s *Stream, limit uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.overtake(frameOpen, s.id, 0)
	w.addCredit(s, limit)
}

// credit tells the peer how far the stream may go. A value that still waits is
// replaced.
func (w *sender) credit(s *Stream, limit uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.addCredit(s, limit)
}

func (w *sender) addCredit(s *Stream, limit uint64) {
	if w.ending || limit == leastWindow {
		return
	}
	if s.out.credit == 0 {
		w.credits = append(w.credits, s)
	}
	s.out.credit = limit
}

// grant lets the peer open n streams, counted from the start.
func (w *sender) grant(n uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.streams = n
}

// endWrites makes a pending Write return.
func (w *sender) endWrites(s *Stream) {
	w.leaveLine(s)
	s.out.writer.cond.Broadcast()
}

// reset ends a stream on both sides.
func (w *sender) reset(s *Stream, why *transport.StreamError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.out.failed = why
	w.endWrites(s)
	w.overtake(frameReset, s.id, uint64(why.Code))
}

// close ends a stream of which nothing is needed any more: with a reset if it
// interrupts a Write, and without a word if the peer knows. heard says that the
// peer's direction has ended.
func (w *sender) close(s *Stream, known, heard bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.out.closed = true
	w.endWrites(s)
	switch {
	case known:
	case s.out.writing:
		w.overtake(frameReset, s.id, uint64(transport.Canceled))
	default:
		if !s.out.ended && s.out.stopped == nil {
			w.inOrder(frameEnd, s.id, s.out.sent)
		}
		if !heard {
			w.overtake(frameStop, s.id, uint64(transport.Canceled))
		}
	}
}

// lateFrames returns how many frames about a stream, other than DATA, a peer may
// send before it knows that the stream is over: one END, RESET and STOP, and CREDIT
// as far as that may go.
func (w *sender) lateFrames(s *Stream) int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return 3 + int64((s.out.sent+largestWindow-s.out.limit)/leastRaise)
}

// The rest is called by the receiver, for what the peer sent.

// wasReset ends the writing half of a stream that the peer has reset.
func (w *sender) wasReset(s *Stream, why *transport.StreamError) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s.out.failed = why
	w.endWrites(s)
}

// wasStopped ends the writing half of a stream that the peer does not read.
func (w *sender) wasStopped(s *Stream, code transport.Code) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.out.stopped != nil {
		return errors.New("a second STOP")
	}
	s.out.stopped = &transport.StreamError{Code: code, Remote: true}
	w.endWrites(s)
	return nil
}

// mayWrite applies the credit that the peer gives a stream.
func (w *sender) mayWrite(s *Stream, limit uint64) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	o := &s.out
	if limit < o.limit+leastRaise {
		return fmt.Errorf("CREDIT up to byte %d, it was %d and rises by %d at least", limit, o.limit, leastRaise)
	}
	if limit > o.sent+largestWindow {
		return fmt.Errorf("CREDIT up to byte %d, at most %d are possible", limit, o.sent+largestWindow)
	}
	o.limit = limit
	w.standInLine(s)
	return nil
}
