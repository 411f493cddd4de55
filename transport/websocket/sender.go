package websocket

import (
	"slices"
	"sync"
	"time"
)

// queueLimit is how much data may wait for the network. A Write returns when its
// bytes are in the queue; when the queue is full, Writes stand in line. It is
// small because everything that is queued delays what comes after it.
const queueLimit = 64 << 10

// smallWrite is the most that a Write may send to stand in the shorter line.
const smallWrite = 2 << 10

// sender is the one that writes to the carrier. What others send is either
// copied into its buffers at once or, when those are full, stands in line until
// the sender takes it. Nothing here waits for the network but run.
type sender struct {
	carrier carrier
	timeout time.Duration
	stuck   func() // a message was not accepted in time
	failed  func(error)

	wake chan struct{} // capacity 1
	done chan struct{} // closed when run has returned

	mu      sync.Mutex
	closing bool
	urgent  []byte    // goes before the queue, in its own order
	queue   []byte    // frames in the order in which they were sent
	windows []*stream // whose update waits in stream.update
	small   []*stream // whose data waits in stream.offer and is short
	large   []*stream // whose data waits in stream.offer and is not
	streams uint64    // the last grant of streams, to be sent if not 0
}

// newSender returns a sender whose first frame lets the peer open n streams: a
// connection starts with that, and nothing may overtake it.
func newSender(c carrier, n uint64, timeout time.Duration, stuck func(), failed func(error)) *sender {
	return &sender{
		urgent:  appendControl(grow(nil), control{kindStreams, 0, n}),
		carrier: c,
		timeout: timeout,
		stuck:   stuck,
		failed:  failed,
		wake:    make(chan struct{}, 1),
		done:    make(chan struct{}),
	}
}

// run writes until close is called and everything is written, or the carrier
// fails.
func (s *sender) run() {
	defer close(s.done)
	watchdog := time.AfterFunc(s.timeout, s.stuck)
	defer watchdog.Stop()
	watchdog.Stop()
	for {
		message, more := s.take()
		if message == nil && !more {
			return
		}
		if message == nil {
			<-s.wake
			continue
		}
		for at := 0; at < len(message); at += maxMessage {
			watchdog.Reset(s.timeout)
			err := s.carrier.WriteMessage(message[at:min(at+maxMessage, len(message))])
			watchdog.Stop()
			if err != nil {
				s.failed(err)
				return
			}
		}
		recycle(message)
	}
}

// take returns what is to be written next, in a buffer to recycle, or nil if
// that is nothing; and false when there will be no more.
func (s *sender) take() (message []byte, more bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams > 0 {
		s.urgent = appendControl(grow(s.urgent), control{kindStreams, 0, s.streams})
		s.streams = 0
	}
	for _, st := range s.windows {
		s.urgent = appendWindow(grow(s.urgent), st.id, st.update)
		st.updating = false
	}
	clear(s.windows)
	s.windows = s.windows[:0]

	message, s.queue = s.queue, nil
	if s.urgent != nil {
		queue := message
		message, s.urgent = append(s.urgent, queue...), nil
		recycle(queue)
	}
	// What is short goes first, so that a question does not wait for hundreds
	// of transfers; but one of those goes on each time.
	for len(s.small) > 0 && len(s.queue) < queueLimit {
		s.small = s.takeOffer(s.small)
	}
	for first := true; len(s.large) > 0 && (first || len(s.queue) < queueLimit); first = false {
		s.large = s.takeOffer(s.large)
	}
	return message, !s.closing
}

// takeOffer puts the first offer of a line into the queue and returns the rest.
func (s *sender) takeOffer(line []*stream) []*stream {
	st := line[0]
	s.queue = appendData(grow(s.queue), st.id, st.offer)
	st.offer = nil
	st.signal()
	return slices.Delete(line, 0, 1)
}

// buffers holds buffers of idle connections, which need none.
var buffers sync.Pool // of *[bufferSize]byte

const bufferSize = queueLimit + maxFrame + (4 << 10)

// grow returns b, or a buffer to append to if b is nil.
func grow(b []byte) []byte {
	if b != nil {
		return b
	}
	if pooled, ok := buffers.Get().(*[bufferSize]byte); ok {
		return pooled[:0]
	}
	return make([]byte, 0, bufferSize)
}

// recycle gives a buffer from grow back, unless append has replaced it.
func recycle(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}

// data sends p as one frame of st. It returns false when the line is long: then
// p is in it, until it was taken or the caller withdraws it.
func (s *sender) data(st *stream, p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return true // the connection has ended, and all data with it
	}
	if len(s.queue) >= queueLimit || len(s.small)+len(s.large) > 0 {
		st.offer = p
		if len(p) <= smallWrite {
			s.small = append(s.small, st)
		} else {
			s.large = append(s.large, st)
		}
		return false
	}
	s.queue = appendData(grow(s.queue), st.id, p)
	s.kick()
	return true
}

// taken reports whether the data of st is no longer in the line.
func (s *sender) taken(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return st.offer == nil
}

// withdraw takes the data of st out of the line. It returns false when it was
// already taken.
func (s *sender) withdraw(st *stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.offer == nil {
		return false
	}
	st.offer = nil
	is := func(x *stream) bool { return x == st }
	s.small = slices.DeleteFunc(s.small, is)
	s.large = slices.DeleteFunc(s.large, is)
	return true
}

// fromSmux sends a frame that smux made. A stream that opens overtakes data as
// overtake does, so that nothing about the stream arrives before; one that is
// over comes behind all its data.
func (s *sender) fromSmux(b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	if b[1] == cmdOpen {
		s.urgent = append(grow(s.urgent), b...)
	} else {
		s.queue = append(grow(s.queue), b...)
	}
	s.kick()
}

// inOrder sends c behind all data that was sent before.
func (s *sender) inOrder(c control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.queue = appendControl(grow(s.queue), c)
	s.kick()
}

// overtake sends c before data that waits.
func (s *sender) overtake(c control) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	s.urgent = appendControl(grow(s.urgent), c)
	s.kick()
}

// window sends the newest update of st; one that still waits is replaced.
func (s *sender) window(st *stream, u windowUpdate) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return
	}
	if st.update = u; !st.updating {
		st.updating = true
		s.windows = append(s.windows, st)
	}
	s.kick()
}

// grant lets the peer open n streams, counted from the start.
func (s *sender) grant(n uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = max(s.streams, n)
	s.kick()
}

// close makes run return once everything is written.
func (s *sender) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing = true
	s.kick()
}

func (s *sender) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}
