package mem

// ring is a queue of bytes that grows on demand. The zero value is empty and
// holds no memory.
type ring struct {
	buf     []byte
	head, n int // the n bytes from head are queued
}

const minRing = 512

// write appends p. The caller makes sure that n+len(p) does not exceed limit,
// which is also the most that the ring ever allocates.
func (r *ring) write(p []byte, limit int) {
	if need := r.n + len(p); need > len(r.buf) {
		grown := make([]byte, min(max(need, 2*len(r.buf), minRing), limit))
		r.peek(grown)
		r.buf, r.head = grown, 0
	}
	tail := (r.head + r.n) % len(r.buf)
	c := copy(r.buf[tail:], p)
	copy(r.buf, p[c:])
	r.n += len(p)
}

// read moves up to len(p) bytes into p.
func (r *ring) read(p []byte) int {
	c := r.peek(p)
	r.n -= c
	r.head = (r.head + c) % len(r.buf)
	if r.n == 0 {
		r.head = 0
	}
	return c
}

// peek copies up to len(p) bytes into p.
func (r *ring) peek(p []byte) int {
	p = p[:min(len(p), r.n)]
	c := copy(p, r.buf[min(r.head, len(r.buf)):])
	copy(p[c:], r.buf)
	return len(p)
}
