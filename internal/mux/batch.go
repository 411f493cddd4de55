package mux

import (
	"encoding/binary"
	"sync"
)

// batch is a number of whole frames that are written at once.
type batch struct {
	buf   []byte // frames are in buf[start:]
	start int
	store []byte // what buf is part of, unless the frames have outgrown it
}

// headroom is for the urgent frames that are written before the others.
const headroom = 256

const (
	smallBatch = 2 << 10
	largeBatch = headroom + queueLimit + headerSize + maxFrame + 4<<10
	maxBatch   = 128 << 10
)

// Only connections with something to send have batches, and those that have
// little to send have small ones.
var smallBatches, largeBatches sync.Pool

func newBatch(n int) *batch {
	pool, size := &smallBatches, smallBatch
	if n+headroom > smallBatch {
		pool, size = &largeBatches, largeBatch
	}
	b, ok := pool.Get().(*batch)
	if !ok {
		b = &batch{store: make([]byte, size)}
	}
	b.buf, b.start = b.store[:headroom], headroom
	return b
}

// recycle gives a batch back.
func (b *batch) recycle() {
	if b == nil {
		return
	}
	b.buf = nil
	if len(b.store) == smallBatch {
		smallBatches.Put(b)
	} else {
		largeBatches.Put(b)
	}
}

// room returns b, or what takes its place, with room for n more bytes. Frames
// that do not fit into a large batch move to memory of their own.
func (b *batch) room(n int) *batch {
	switch {
	case b == nil:
		return newBatch(n)
	case len(b.buf)+n <= cap(b.buf) || len(b.store) == largeBatch:
		return b
	}
	larger := newBatch(largeBatch)
	larger.buf = append(larger.buf, b.frames()...)
	b.recycle()
	return larger
}

func (b *batch) frames() []byte { return b.buf[b.start:] }

func (b *batch) len() int {
	if b == nil {
		return 0
	}
	return len(b.buf) - b.start
}

// prepend puts frames before the others, if there is room.
func (b *batch) prepend(frames []byte) bool {
	if len(frames) > b.start {
		return false
	}
	b.start -= len(frames)
	copy(b.buf[b.start:], frames)
	return true
}

// control appends a frame to b, or to what takes its place.
func (b *batch) control(t frameType, stream uint32, v uint64) *batch {
	b = b.room(headerSize + frameTypes[t].least)
	b.buf = appendControl(b.buf, t, stream, v)
	return b
}

// data is control for a DATA frame.
func (b *batch) data(stream uint32, p []byte) *batch {
	b = b.room(headerSize + len(p))
	b.buf = appendData(b.buf, stream, p)
	return b
}

// split cuts b behind the last frame that is within n bytes, and returns the rest.
func (b *batch) split(n int) (rest *batch) {
	frames := b.frames()
	if len(frames) <= n {
		return nil
	}
	end := 0
	for {
		next := end + headerSize + int(binary.BigEndian.Uint32(frames[end:])&0xffffff)
		if next > n {
			break
		}
		end = next
	}
	rest = newBatch(len(frames) - end)
	rest.buf = append(rest.buf, frames[end:]...)
	b.buf = b.buf[:b.start+end]
	return rest
}
