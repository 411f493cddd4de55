package cork

import "sync"

// buffer is memory that connections borrow while they are corked.
type buffer struct {
	b     []byte
	store []byte
}

// bufferSize is how much is written at once: four records of TLS. More would not
// be faster, since meanwhile the peer has nothing to do.
const bufferSize = 64<<10 + 4*recordOverhead

// recordOverhead is that of a record of TLS 1.3.
const recordOverhead = 22

var buffers sync.Pool

func get() *buffer {
	f, ok := buffers.Get().(*buffer)
	if !ok {
		f = &buffer{store: make([]byte, bufferSize)}
	}
	f.b = f.store[:0]
	return f
}

func (f *buffer) put() {
	f.b = nil
	buffers.Put(f)
}
