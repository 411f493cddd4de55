package testnet

import (
	"container/heap"
	"math/rand/v2"
	"sync"
	"time"
)

// Conditions are what one direction of a relay or a wire does to what passes. The zero
// value passes everything on at once.
type Conditions struct {
	Delay  time.Duration // of everything
	Jitter time.Duration // a random part of it is added to Delay; datagrams overtake each other
	Rate   int64         // bytes per second; 0 is no limit
	Stall  bool          // holds everything back, until it is unset

	// What follows is for datagrams and packets, not for TCP streams.

	Loss    float64 // share that is dropped, 0 to 1
	Reorder float64 // share that is held back for ReorderBy, so that later ones overtake
	MTU     int     // longer ones are dropped in silence; 0 is no limit
}

const (
	// ReorderBy is how long a datagram waits that [Conditions.Reorder] has hit.
	ReorderBy = 10 * time.Millisecond

	maxQueue  = 4 << 20                // bytes on the line; beyond, packets are dropped and streams wait
	maxBehind = 200 * time.Millisecond // what a packet may wait for its turn at Rate; beyond, it is dropped
)

// line carries one direction. It owns a goroutine that calls out.
type line struct {
	out    func([]byte)
	stream bool // keeps the order and loses nothing; nil marks its end

	mu     sync.Mutex
	room   *sync.Cond
	rng    *rand.Rand
	cond   Conditions
	turn   time.Time // when Rate has sent what was accepted so far
	last   time.Time // when the newest item of a stream arrives
	seq    uint64
	items  items
	queued int
	closed bool

	wake chan struct{} // capacity 1
	done chan struct{}
}

func newLine(seed1, seed2 uint64, stream bool, cond Conditions, out func([]byte)) *line {
	l := &line{
		out:    out,
		stream: stream,
		rng:    rand.New(rand.NewPCG(seed1, seed2)),
		cond:   cond,
		wake:   make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	l.room = sync.NewCond(&l.mu)
	go l.run()
	return l
}

func (l *line) set(c Conditions) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cond = c
	l.kick()
}

func (l *line) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// send passes b on, which the line then owns. A stream waits while the line is full.
func (l *line) send(b []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.stream && l.queued > maxQueue/16 && !l.closed {
		l.room.Wait()
	}
	if l.closed {
		return
	}
	// The same numbers are drawn whatever the conditions are: what befalls a packet
	// depends on its number alone.
	loss, reorder, jitter := l.rng.Float64(), l.rng.Float64(), l.rng.Float64()
	c := l.cond
	now := time.Now()
	if !l.stream && (loss < c.Loss || c.MTU > 0 && len(b) > c.MTU || l.queued+len(b) > maxQueue) {
		return
	}
	at := now
	if c.Rate > 0 {
		if l.turn.Before(now) {
			l.turn = now
		}
		if !l.stream && l.turn.Sub(now) > maxBehind {
			return
		}
		l.turn = l.turn.Add(time.Duration(float64(len(b)) / float64(c.Rate) * float64(time.Second)))
		at = l.turn
	}
	at = at.Add(c.Delay + time.Duration(jitter*float64(c.Jitter)))
	switch {
	case l.stream && at.Before(l.last):
		at = l.last
	case !l.stream && reorder < c.Reorder:
		at = at.Add(ReorderBy)
	}
	l.last = at
	l.seq++
	heap.Push(&l.items, item{at: at, seq: l.seq, data: b})
	l.queued += len(b)
	if l.items[0].seq == l.seq {
		l.kick()
	}
}

func (l *line) run() {
	defer close(l.done)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		b, wait, ok := l.next()
		switch {
		case !ok:
			return
		case wait == 0:
			l.out(b)
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-l.wake:
		}
	}
}

// next returns what is due, or how long there is nothing; false when the line is closed.
func (l *line) next() (b []byte, wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, 0, false
	}
	if l.cond.Stall || len(l.items) == 0 {
		return nil, time.Hour, true
	}
	if wait := time.Until(l.items[0].at); wait > 0 {
		return nil, wait, true
	}
	it, _ := heap.Pop(&l.items).(item)
	l.queued -= len(it.data)
	l.room.Signal()
	return it.data, 0, true
}

// stop forgets what is under way. out is not called afterwards, but may still run.
func (l *line) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.items, l.queued = nil, 0
	l.room.Broadcast()
	l.kick()
}

func (l *line) stopped() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

type item struct {
	at   time.Time
	seq  uint64
	data []byte
}

// items is a heap, the earliest first.
type items []item

func (q items) Len() int { return len(q) }
func (q items) Less(i, j int) bool {
	return q[i].at.Before(q[j].at) || q[i].at.Equal(q[j].at) && q[i].seq < q[j].seq
}
func (q items) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *items) Push(x any)   { it, _ := x.(item); *q = append(*q, it) }
func (q *items) Pop() any {
	old := *q
	it := old[len(old)-1]
	old[len(old)-1] = item{}
	*q = old[:len(old)-1]
	return it
}
