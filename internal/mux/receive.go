package mux

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"

	"github.com/outgate/outgate/transport"
)

// readAhead is how much is read at least, if the connection has it. What is about
// streams fits into it; most of a large DATA frame goes past it.
const readAhead = 512

// receiver reads the connection. Nothing but the connection makes it wait.
type receiver struct {
	m       *Mux
	conn    net.Conn
	started bool // STREAMS has arrived
	last    *Stream

	buf  [readAhead]byte
	r, w int // buf[r:w] was not used yet
}

// run reads until the connection ends and returns why.
func (r *receiver) run() error {
	for {
		b, err := r.next(headerSize)
		if err != nil {
			return err
		}
		h, err := parseHeader([headerSize]byte(b))
		if err != nil {
			return protocolError(err)
		}
		if err := r.frame(h); err != nil {
			return err
		}
	}
}

// frame reads the payload of a frame and acts on it.
func (r *receiver) frame(h header) error {
	if !r.started && h.typ != frameStreams && h.typ != frameGoAway {
		return protocolError(fmt.Errorf("%s before STREAMS", h.typ))
	}
	if h.typ == frameData {
		return r.data(h.stream, h.length)
	}
	payload, err := r.next(h.length)
	if err != nil {
		return err
	}
	if h.stream == 0 {
		return r.connection(h.typ, payload)
	}
	flush, err := r.stream(h, payload)
	if err != nil {
		return protocolError(fmt.Errorf("stream %d: %w", h.stream, err))
	}
	if flush {
		r.m.sender.flush()
	}
	return nil
}

// connection acts on a frame about the connection.
func (r *receiver) connection(t frameType, payload []byte) error {
	var err error
	switch t {
	case frameStreams:
		err = r.m.mayOpenUpTo(binary.BigEndian.Uint32(payload))
		if !r.started {
			r.started = true
			close(r.m.ready)
		}
	case framePing:
		err = r.m.sender.pinged(binary.BigEndian.Uint64(payload))
		r.m.sender.flush()
	case framePong:
		err = r.m.ponged(binary.BigEndian.Uint64(payload))
	default: // GOAWAY
		return &transport.CloseError{
			Code:   transport.Code(binary.BigEndian.Uint32(payload)),
			Reason: cleanReason(string(payload[4:])),
			Remote: true,
		}
	}
	if err != nil {
		return protocolError(err)
	}
	return nil
}

// stream acts on a frame about a stream that is not DATA, and reports whether
// there may be something to flush.
func (r *receiver) stream(h header, payload []byte) (flush bool, err error) {
	if h.typ == frameOpen {
		return false, r.m.opens(h.stream)
	}
	s, err := r.m.lookup(h.stream)
	if err != nil {
		return false, err
	}
	if s == nil {
		return false, r.m.spend(lateFrame)
	}
	switch h.typ {
	case frameCredit:
		return true, r.m.sender.mayWrite(s, binary.BigEndian.Uint64(payload))
	case frameEnd:
		return false, s.ends(binary.BigEndian.Uint64(payload))
	case frameReset:
		return false, s.wasReset(transport.Code(binary.BigEndian.Uint32(payload)))
	default: // STOP
		return false, r.m.sender.wasStopped(s, transport.Code(binary.BigEndian.Uint32(payload)))
	}
}

// data reads n bytes into a stream.
func (r *receiver) data(id uint32, n int) error {
	s, err := r.lookup(id)
	if err != nil {
		return protocolError(fmt.Errorf("stream %d: %w", id, err))
	}
	for n > 0 {
		var space []byte
		if s != nil {
			if space, err = s.space(n); err != nil {
				return protocolError(fmt.Errorf("stream %d: %w", id, err))
			}
		}
		if space == nil {
			return r.late(s, n)
		}
		k, err := r.read(space)
		if s.filled(k) {
			r.m.sender.flush()
		}
		if err != nil {
			return err
		}
		n -= k
	}
	return nil
}

// late reads n bytes for a stream that takes none any more.
func (r *receiver) late(s *Stream, n int) error {
	if s == nil || s.isReleased() {
		if err := r.m.spend(n); err != nil {
			return protocolError(err)
		}
	}
	return r.discard(n)
}

// lookup is Mux.lookup for a frame that is often about the same stream as the one
// before. It may return a stream that has just been released.
func (r *receiver) lookup(id uint32) (*Stream, error) {
	if r.last != nil && r.last.id == id {
		return r.last, nil
	}
	s, err := r.m.lookup(id)
	r.last = s
	return s, err
}

// next returns the next n bytes of the connection, at most readAhead. They are
// valid until the next call.
func (r *receiver) next(n int) ([]byte, error) {
	for r.w-r.r < n {
		if r.r > 0 {
			r.w = copy(r.buf[:], r.buf[r.r:r.w])
			r.r = 0
		}
		k, err := r.conn.Read(r.buf[r.w:])
		r.w += k
		if err != nil && r.w < n {
			return nil, err
		}
	}
	b := r.buf[r.r : r.r+n]
	r.r += n
	return b, nil
}

// read fills p from the connection.
func (r *receiver) read(p []byte) (int, error) {
	n := copy(p, r.buf[r.r:r.w])
	r.r += n
	k, err := io.ReadFull(r.conn, p[n:])
	return n + k, err
}

func (r *receiver) discard(n int) error {
	for n > 0 {
		k := min(n, readAhead)
		if _, err := r.next(k); err != nil {
			return err
		}
		n -= k
	}
	return nil
}
