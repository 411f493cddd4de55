//go:build linux

package netlab

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outgate/outgate/transport"
)

// flow is a conversation whose every byte is known from its seed and offset, so that a
// lost, repeated or foreign piece shows wherever it is. The opener sends the flow itself
// first; then both sides send Size bytes and end, and both check what they get.
type flow struct {
	ID    int64
	Seed  uint64
	Size  int64         // each way; negative: without end
	Chunk int64         // bytes per write; 0: this flow stays silent until it is broken
	Pace  time.Duration // between writes
	Drag  time.Duration // between reads of the opener: a slow reader
}

const flowHeader = 48

// ending is how a flow ended on one side.
type ending struct {
	Sent, Received int64
	Clean          bool   // the peer's END came, after all of its bytes
	Corrupt        string // what no fault of the network explains
	Code           transport.Code
	Error          string
}

func (f flow) writeTo(c net.Conn) error {
	b := make([]byte, 0, flowHeader)
	for _, v := range []uint64{uint64(f.ID), f.Seed, uint64(f.Size), uint64(f.Chunk), uint64(f.Pace), uint64(f.Drag)} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	_, err := c.Write(b)
	return err
}

func readFlow(c net.Conn) (flow, error) {
	var b [flowHeader]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return flow{}, err
	}
	v := func(i int) int64 { return int64(binary.BigEndian.Uint64(b[8*i:])) }
	return flow{ID: v(0), Seed: uint64(v(1)), Size: v(2), Chunk: v(3), Pace: time.Duration(v(4)), Drag: time.Duration(v(5))}, nil
}

// run is one side of the conversation. It closes c. moved counts bytes in both directions
// while it runs.
func (f flow) run(c net.Conn, opener bool, moved *atomic.Int64) (e ending) {
	out, in := f.Seed, f.Seed^0x5bd1e995
	if !opener {
		out, in = in, out
	}
	broken := make(chan struct{}) // the reader has found the end
	var writer sync.WaitGroup
	var writeErr error
	writer.Go(func() { e.Sent, writeErr = f.write(c, out, moved, broken) })
	received, corrupt, readErr := f.read(c, in, opener, moved)
	close(broken)
	if readErr != io.EOF {
		_ = c.SetWriteDeadline(time.Now().Add(5 * time.Second)) // the connection has gone: nothing waits for that
	}
	writer.Wait()
	e.Received, e.Corrupt = received, corrupt
	switch {
	case e.Corrupt != "":
	case readErr == io.EOF && received == f.Size:
		e.Clean = writeErr == nil
	case readErr == io.EOF:
		e.Corrupt = fmt.Sprintf("a clean end after %d of %d bytes", received, f.Size)
	case writeErr == nil && e.Sent < f.Size && f.Size >= 0:
		e.Corrupt = "a write succeeded on a broken stream"
	}
	for _, err := range []error{readErr, writeErr} {
		if err == nil || err == io.EOF || e.Error != "" {
			continue
		}
		e.Error = err.Error()
		e.Code = codeOf(err)
	}
	if e.Clean {
		_ = c.Close()
	} else {
		abort(c)
	}
	return e
}

// abort ends c so that the peer takes nothing for complete.
func abort(c net.Conn) {
	switch c := c.(type) {
	case transport.Stream:
		_ = c.Reset(transport.Canceled)
	case *net.TCPConn:
		_ = c.SetLinger(0)
	}
	_ = c.Close()
}

func codeOf(err error) transport.Code {
	if closed, ok := errors.AsType[*transport.CloseError](err); ok {
		return closed.Code
	}
	if reset, ok := errors.AsType[*transport.StreamError](err); ok {
		return reset.Code
	}
	return transport.NoError
}

func (f flow) write(c net.Conn, seed uint64, moved *atomic.Int64, broken <-chan struct{}) (sent int64, err error) {
	if f.Chunk == 0 {
		<-broken
		return 0, nil
	}
	pause := time.NewTimer(time.Hour)
	defer pause.Stop()
	buf := make([]byte, f.Chunk)
	for f.Size < 0 || sent < f.Size {
		b := buf
		if f.Size >= 0 {
			b = b[:min(f.Chunk, f.Size-sent)]
		}
		fill(b, seed, sent)
		n, err := c.Write(b)
		sent += int64(n)
		moved.Add(int64(n))
		if err != nil {
			return sent, err
		}
		if f.Pace > 0 {
			pause.Reset(f.Pace)
			select {
			case <-pause.C:
			case <-broken: // one more write tells what the writer learns
			}
		}
	}
	return sent, c.(interface{ CloseWrite() error }).CloseWrite()
}

func (f flow) read(c net.Conn, seed uint64, opener bool, moved *atomic.Int64) (received int64, corrupt string, err error) {
	buf, want := make([]byte, 32<<10), make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		fill(want[:n], seed, received)
		for i := range n {
			if buf[i] != want[i] {
				return received, fmt.Sprintf("byte %d is %#x, want %#x", received+int64(i), buf[i], want[i]), err
			}
		}
		received += int64(n)
		moved.Add(int64(n))
		if err != nil {
			return received, "", err
		}
		if opener && f.Drag > 0 {
			time.Sleep(f.Drag)
		}
	}
}

// fill writes what a flow with this seed has at an offset.
func fill(b []byte, seed uint64, offset int64) {
	word := func(at uint64) uint64 { return mix(seed + at>>3*0x9e3779b97f4a7c15) }
	at, end := uint64(offset), uint64(offset)+uint64(len(b))
	for ; at < end; at++ {
		if at&7 == 0 && end-at >= 8 {
			binary.LittleEndian.PutUint64(b[at-uint64(offset):], word(at))
			at += 7
			continue
		}
		b[at-uint64(offset)] = byte(word(at) >> (8 * (at & 7)))
	}
}

// mix is the finalizer of splitmix64.
func mix(z uint64) uint64 {
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}
