package websocket

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/outgate/outgate/transport"
)

// receiver is what smux reads from: the frames of the carrier, checked, without
// those that smux need not see. It runs in the one goroutine of smux that reads,
// so when it looks at a frame, smux has dealt with all frames before it.
type receiver struct {
	m       *mux
	src     io.Reader
	started bool

	// What smux still has to read of the current frame.
	header    [headerSize]byte
	headLeft  int
	bodyLeft  int
	accepting uint32 // the stream that smux has opened for the peer by the next Read
}

// Read ends the connection when it returns an error.
func (r *receiver) Read(p []byte) (int, error) {
	if r.headLeft == 0 && r.bodyLeft == 0 {
		if err := r.next(); err != nil {
			cause := closeCause(err)
			r.m.end(cause)
			return 0, cause
		}
	}
	if r.headLeft > 0 {
		n := copy(p, r.header[headerSize-r.headLeft:])
		r.headLeft -= n
		return n, nil
	}
	n, err := r.src.Read(p[:min(len(p), r.bodyLeft)])
	r.bodyLeft -= n
	if err != nil {
		cause := closeCause(err)
		r.m.end(cause)
		return n, cause
	}
	return n, nil
}

// next reads up to the next frame that is for smux.
func (r *receiver) next() error {
	if r.accepting != 0 {
		if err := r.m.attach(r.accepting); err != nil {
			return err
		}
		r.accepting = 0
	}
	for {
		// After the end of the connection no stream grows any more.
		if err := r.m.ctx.Err(); err != nil {
			return err
		}
		if _, err := io.ReadFull(r.src, r.header[:]); err != nil {
			return err
		}
		h, err := parseHeader(r.header)
		if err != nil {
			return protocolError(err)
		}
		forSmux, err := r.frame(h)
		if err != nil {
			return err
		}
		if forSmux {
			r.headLeft, r.bodyLeft = headerSize, h.length
			return nil
		}
	}
}

// frame acts on one frame and reports whether smux should have it. The payload
// of one that smux should not have is read.
func (r *receiver) frame(h frameHeader) (forSmux bool, err error) {
	if h.stream == streamControl {
		switch h.command {
		case cmdNop:
			return false, nil
		case cmdClose:
			return false, r.close(h.length)
		}
		return false, r.control()
	}
	if !r.started {
		return false, protocolError(fmt.Errorf("command %d before the first grant of streams", h.command))
	}
	if h.command == cmdOpen {
		if err := r.m.opens(h.stream); err != nil {
			return false, protocolError(err)
		}
		r.accepting = h.stream
		return true, nil
	}
	st, err := r.m.lookup(h.stream)
	if err != nil {
		return false, protocolError(err)
	}
	switch h.command {
	case cmdData:
		if st != nil {
			err = st.arrives(h.length)
		}
		forSmux = true // which throws it away if it has forgotten the stream
	case cmdForget:
		if st != nil {
			st.forgotten()
		}
		forSmux = true
	case cmdWindow:
		var b [windowSize]byte
		if _, err := io.ReadFull(r.src, b[:]); err != nil {
			return false, err
		}
		if st != nil {
			err = st.mayWrite(parseWindow(b))
		}
	}
	if err != nil {
		return false, protocolError(fmt.Errorf("stream %d: %w", h.stream, err))
	}
	return forSmux, nil
}

// close returns why the peer ends the connection.
func (r *receiver) close(n int) error {
	if _, inner := r.src.(*innerCarrier); !inner {
		return protocolError(fmt.Errorf("command %d outside TLS of its own", cmdClose))
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r.src, b); err != nil {
		return err
	}
	return parseClose(b)
}

func (r *receiver) control() error {
	var b [controlSize]byte
	if _, err := io.ReadFull(r.src, b[:]); err != nil {
		return err
	}
	c, err := parseControl(b)
	if err != nil {
		return protocolError(err)
	}
	if c.kind == kindStreams {
		r.m.mayOpenUpTo(c.value)
		if !r.started {
			r.started = true
			close(r.m.ready)
		}
		return nil
	}
	if !r.started {
		return protocolError(fmt.Errorf("control record %d before the first grant of streams", c.kind))
	}
	st, err := r.m.lookup(c.stream)
	if err != nil {
		return protocolError(err)
	}
	if st == nil {
		return nil // a word too late about a stream that is gone
	}
	switch c.kind {
	case kindEnd:
		if err := st.ends(c.value); err != nil {
			return protocolError(fmt.Errorf("stream %d: %w", c.stream, err))
		}
	case kindReset:
		st.wasReset(transport.Code(c.value))
	case kindStop:
		st.stop(transport.Code(c.value))
	}
	return nil
}

// smuxConn is the carrier as smux sees it.
type smuxConn struct {
	receiver
	running chan struct{} // closed when the mux is complete
}

func (c *smuxConn) Read(p []byte) (int, error) {
	<-c.running
	return c.receiver.Read(p)
}

// WriteBuffers is what smux calls instead of Write; without it every session
// would hold a buffer of 64 KiB.
func (c *smuxConn) WriteBuffers(v [][]byte) (n int, err error) {
	for _, b := range v {
		n += len(b)
	}
	switch v[0][1] {
	case cmdWindow:
		// smux sends its updates under the deadline of the reader, so one can
		// be lost; then the writer would wait for ever. Ours replace them.
	case cmdOpen, cmdForget:
		c.m.sender.fromSmux(v[0])
	default:
		return 0, fmt.Errorf("websocket: smux sent command %d for stream %d", v[0][1], binary.LittleEndian.Uint32(v[0][4:]))
	}
	return n, nil
}

func (c *smuxConn) Write(p []byte) (int, error) { return c.WriteBuffers([][]byte{p}) }

// Close does nothing: the mux closes its carrier itself.
func (c *smuxConn) Close() error { return nil }
