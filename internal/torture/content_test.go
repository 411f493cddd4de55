package torture

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// content is an endless sequence of bytes that is known at every offset. A byte that
// is lost, doubled, moved or from another stream shows.
type content uint64

// word is the 8 bytes from 8*i on (splitmix64).
func (c content) word(i uint64) uint64 {
	x := uint64(c) + (i+1)*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fill sets p to the bytes from offset on.
func (c content) fill(p []byte, offset int64) {
	for len(p) > 0 {
		i, skip := uint64(offset)/8, int(offset%8)
		if skip == 0 && len(p) >= 8 {
			binary.LittleEndian.PutUint64(p, c.word(i))
			p, offset = p[8:], offset+8
			continue
		}
		var w [8]byte
		binary.LittleEndian.PutUint64(w[:], c.word(i))
		n := copy(p, w[skip:])
		p, offset = p[n:], offset+int64(n)
	}
}

// corruption is bytes that are not those that were written.
type corruption struct{ from, to int64 }

func (e *corruption) Error() string {
	return fmt.Sprintf("the bytes between %d and %d are not those that were written", e.from, e.to)
}

// writer writes the content, one piece after the other.
type writer struct {
	io.Writer
	content
	offset int64
	buf    [16 << 10]byte
}

// write writes n more bytes, in pieces of at most the size given.
func (w *writer) write(n int64, piece int) error {
	for n > 0 {
		p := w.buf[:min(n, int64(piece), int64(len(w.buf)))]
		w.fill(p, w.offset)
		written, err := w.Write(p)
		w.offset += int64(written)
		if err != nil {
			return fmt.Errorf("write after %d bytes: %w", w.offset, err)
		}
		n -= int64(written)
	}
	return nil
}

// reader reads what a writer wrote and compares.
type reader struct {
	io.Reader
	content
	offset    int64
	got, want [16 << 10]byte
}

// some reads once, at most n bytes.
func (r *reader) some(n int64) error {
	p := r.got[:min(n, int64(len(r.got)))]
	read, err := r.Read(p)
	want := r.want[:read]
	r.fill(want, r.offset)
	if !bytes.Equal(p[:read], want) {
		return &corruption{r.offset, r.offset + int64(read)}
	}
	r.offset += int64(read)
	return err
}

// until reads up to an offset, or to an error, which may be io.EOF.
func (r *reader) until(offset int64) error {
	for r.offset < offset {
		if err := r.some(offset - r.offset); err != nil {
			return err
		}
	}
	return nil
}

// toEnd reads to the end of the stream. It returns nil for io.EOF.
func (r *reader) toEnd() error {
	for {
		if err := r.some(int64(len(r.got))); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestContentIsKnownAtEveryOffset(t *testing.T) {
	const size = 1000
	whole := make([]byte, size)
	content(7).fill(whole, 0)
	for range 1000 {
		from := rand.IntN(size)
		part := make([]byte, rand.IntN(size-from+1))
		content(7).fill(part, int64(from))
		require.Equal(t, whole[from:from+len(part)], part)
	}

	damaged := bytes.Clone(whole)
	damaged[size/2] ^= 1
	r := &reader{Reader: bytes.NewReader(damaged), content: 7}
	require.ErrorAs(t, r.toEnd(), new(*corruption))
	r = &reader{Reader: bytes.NewReader(whole[1:]), content: 7}
	require.ErrorAs(t, r.toEnd(), new(*corruption), "a byte is missing")
	r = &reader{Reader: bytes.NewReader(whole), content: 8}
	require.ErrorAs(t, r.toEnd(), new(*corruption), "of another stream")

	var out bytes.Buffer
	w := &writer{Writer: &out, content: 7}
	require.NoError(t, w.write(size/2, 7))
	require.NoError(t, w.write(size/2, 100))
	require.Equal(t, whole, out.Bytes())
}

// anyPiece is the size of a Write. Smaller ones would fill a window sooner than their
// bytes do.
func anyPiece() int { return 500 + rand.IntN(4500) }
