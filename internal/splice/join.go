package splice

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outgate/outgate/transport"
)

const (
	// patience is how long the target may stay silent, or refuse to read, once it
	// alone holds the join open.
	patience = 30 * time.Second

	// linger is how long the target may take to end its direction when nobody
	// wants the rest of it. Closing at once would throw away what the target has
	// not yet taken in (RFC 2525, section 2.17).
	linger = 5 * time.Second

	// verdict is how long a Write that has failed in the kernel may take to say so.
	verdict = time.Second
)

// join is one running [Join].
type join struct {
	stream transport.Stream
	target net.Conn

	writing chan struct{} // a semaphore; held by a Write to the target until its error is dealt with
	silence atomic.Bool   // the target's silence is bounded by patience
	settled atomic.Int32  // directions that deliver nothing more

	end    sync.Once // the end of both connections
	mu     sync.Mutex
	result Result
}

// toTarget copies from the stream to the target.
func (j *join) toTarget() {
	var b buffer
	defer b.release()
	for refused := false; ; {
		p := b.next()
		n, err := j.stream.Read(p)
		b.filled = n
		if n > 0 && !refused {
			refused = j.writeTarget(p[:n])
		}
		switch {
		case err == nil:
			continue
		case err != io.EOF:
			j.fail(Stream, err)
		case !refused:
			j.endTarget()
			j.settle()
		}
		return
	}
}

// writeTarget reports whether the target has stopped reading.
func (j *join) writeTarget(p []byte) (refused bool) {
	j.writing <- struct{}{}
	defer func() { <-j.writing }()
	n, err := write(j.target, p)
	j.result.ToTarget += n
	switch {
	case err == nil:
		return false
	case !refusal(err):
		j.fail(Target, err)
		return false
	}
	j.record(Target, err)
	j.settle()
	return true
}

// endTarget tells the target that nothing more comes.
func (j *join) endTarget() {
	c, ok := j.target.(interface{ CloseWrite() error })
	if ok && c.CloseWrite() == nil {
		return
	}
	// It may be waiting for an end that it will not see. The error of CloseWrite
	// needs no other treatment: if the target has broken, Read says so.
	j.silence.Store(true)
	_ = j.target.SetReadDeadline(time.Now().Add(patience))
}

// fromTarget copies from the target to the stream.
func (j *join) fromTarget() {
	var b buffer
	defer b.release()
	for refused := false; ; {
		p := b.next()
		n, err := j.target.Read(p)
		b.filled = n
		if n > 0 && j.silence.Load() {
			_ = j.target.SetReadDeadline(time.Now().Add(patience))
		}
		if n > 0 && !refused {
			refused = j.writeStream(p[:n])
		}
		switch {
		case err == nil:
			continue
		case err != io.EOF:
			j.fail(Target, err)
		case !refused:
			j.endStream()
		}
		return
	}
}

// writeStream reports whether the peer has stopped reading.
func (j *join) writeStream(p []byte) (refused bool) {
	n, err := write(j.stream, p)
	j.result.FromTarget += n
	switch {
	case err == nil:
		return false
	case !refusal(err):
		j.fail(Stream, err)
		return false
	}
	_ = j.target.SetWriteDeadline(time.Now().Add(patience))
	j.record(Stream, err)
	j.settle()
	return true
}

// endStream tells the peer that the target's data is complete.
func (j *join) endStream() {
	// The kernel reports a reset once. When a Write to the target has got the
	// report, Read calls it an end; so that Write has to speak first.
	timeout := time.NewTimer(verdict)
	defer timeout.Stop()
	select {
	case j.writing <- struct{}{}:
		<-j.writing
	case <-timeout.C: // the target makes it wait, hence it is alive
	}
	if err := j.stream.CloseWrite(); err != nil && !refusal(err) {
		j.fail(Stream, err)
		return
	}
	j.settle()
}

// settle notes that a direction delivers nothing more. After the second one, what
// is still being read is thrown away.
func (j *join) settle() {
	if j.settled.Add(1) == 2 {
		j.silence.Store(false)
		_ = j.target.SetReadDeadline(time.Now().Add(linger))
		_ = j.stream.Close()
	}
}

// finish ends the join if nothing has failed.
func (j *join) finish() {
	j.end.Do(func() {
		_ = j.stream.Close()
		_ = j.target.Close()
	})
}

// fail ends the join at once.
func (j *join) fail(side Side, err error) {
	j.end.Do(func() {
		j.record(side, err)
		code := transport.Canceled
		if side == Target {
			code = transport.TargetReset
		}
		code = codeOf(err, code)
		_ = j.stream.Reset(code)
		Abort(j.target, code)
	})
}

// record keeps the first error.
func (j *join) record(side Side, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.result.Err == nil {
		j.result.Err, j.result.Side = err, side
	}
}

// write writes p to w and returns how much of it w took.
func write(w io.Writer, p []byte) (int64, error) {
	n, err := w.Write(p)
	if n < len(p) && err == nil {
		err = io.ErrShortWrite
	}
	return int64(n), err
}

// refusal reports whether a Write failed because the other end has stopped
// reading, which says nothing about what it still sends.
func refusal(err error) bool {
	if reset, ok := errors.AsType[*transport.StreamError](err); ok {
		return reset.Remote && reset.Code == transport.Canceled
	}
	return errors.Is(err, syscall.EPIPE)
}

// codeOf returns the code that err carries, or fallback. A failure never gets the
// code NoError.
func codeOf(err error, fallback transport.Code) transport.Code {
	code := fallback
	if reset, ok := errors.AsType[*transport.StreamError](err); ok {
		code = reset.Code
	} else if closed, ok := errors.AsType[*transport.CloseError](err); ok {
		code = closed.Code
	} else if plain, ok := errors.AsType[transport.Code](err); ok {
		code = plain
	} else if errors.Is(err, context.DeadlineExceeded) {
		code = transport.Timeout
	}
	if code == transport.NoError {
		return fallback
	}
	return code
}
