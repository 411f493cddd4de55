package splice

import "sync"

const (
	smallBuffer = 2 << 10
	largeBuffer = 32 << 10
)

var largeBuffers = sync.Pool{New: func() any { return new([largeBuffer]byte) }}

// buffer is what one direction reads into. Most connections are silent most of
// the time: one that exchanges small messages does not hold a large buffer.
type buffer struct {
	filled int // bytes that the last Read returned

	small []byte
	large *[largeBuffer]byte // from the pool; nil while the small one is enough
}

// next returns the buffer for the next Read. What the last one filled must no
// longer be in use.
func (b *buffer) next() []byte {
	if b.filled >= smallBuffer {
		if b.large == nil {
			b.large, _ = largeBuffers.Get().(*[largeBuffer]byte) // the pool holds nothing else
		}
		return b.large[:]
	}
	b.release()
	if b.small == nil {
		b.small = make([]byte, smallBuffer)
	}
	return b.small
}

// release gives the large buffer back.
func (b *buffer) release() {
	if b.large != nil {
		largeBuffers.Put(b.large)
		b.large = nil
	}
}
