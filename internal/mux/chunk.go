package mux

import (
	"math/bits"
	"sync"
)

// chunk is a piece of the data that has arrived and was not read. Chunks of a
// stream form a list.
type chunk struct {
	next *chunk
	buf  []byte
	r, w int // buf[r:w] is not read, buf[w:] is free
}

// Chunks have a power of two of bytes, from 512 to 64 KiB, so that one that holds
// little is small and a DATA frame fits into one.
const (
	leastChunk   = 9
	largestChunk = 16
)

// chunks has a pool for each size. Only buffers that are in use belong to
// anybody, so streams and connections that are idle cost none.
var chunks [largestChunk - leastChunk + 1]sync.Pool

// newChunk returns an empty chunk for n bytes, or the largest there is.
func newChunk(n int) *chunk {
	class := min(max(bits.Len(uint(n-1)), leastChunk), largestChunk) - leastChunk
	if c, ok := chunks[class].Get().(*chunk); ok {
		return c
	}
	return &chunk{buf: make([]byte, 1<<(class+leastChunk))}
}

// free gives a chunk back.
func (c *chunk) free() {
	c.next, c.r, c.w = nil, 0, 0
	chunks[bits.Len(uint(len(c.buf)))-1-leastChunk].Put(c)
}
