package mem

import (
	"bytes"
	"testing"
)

// FuzzRing does to a ring what it does to a bytes.Buffer. Each byte of ops is a
// write (even) or a read (odd) of half as many bytes.
func FuzzRing(f *testing.F) {
	f.Add([]byte{10, 5, 200, 255, 8, 7, 1, 0}, uint16(100))
	f.Add([]byte{254, 254, 254, 101, 254, 255, 255, 255}, uint16(600))
	f.Add([]byte{2, 3, 2, 3, 2, 3, 2}, uint16(1))
	f.Fuzz(func(t *testing.T, ops []byte, limit uint16) {
		var r ring
		var want bytes.Buffer
		next := byte(0)
		for _, op := range ops {
			n := int(op / 2)
			if op%2 == 0 {
				p := make([]byte, min(n, int(limit)-r.n))
				for i := range p {
					p[i] = next
					next++
				}
				if len(p) == 0 {
					continue // never written
				}
				r.write(p, int(limit))
				want.Write(p)
			} else if r.n > 0 { // never read otherwise
				got, expected := make([]byte, n), make([]byte, n)
				read := r.read(got)
				wanted, _ := want.Read(expected) // io.EOF says no more than its count
				if read != wanted || !bytes.Equal(got, expected) {
					t.Fatalf("read %d bytes %v, want %d bytes %v", read, got, wanted, expected)
				}
			}
			if r.n != want.Len() {
				t.Fatalf("%d bytes are queued, want %d", r.n, want.Len())
			}
			if len(r.buf) > int(limit) {
				t.Fatalf("holds %d bytes of memory, the limit is %d", len(r.buf), limit)
			}
		}
	})
}
