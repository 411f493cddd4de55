package transporttest

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"

	"github.com/stretchr/testify/require"
)

func writeTests() []test {
	return []test{
		{"a Write of nothing is no data and no end", zeroByteWrites},
		{"one byte at a time", singleBytes},
		{"pieces of any size, read in pieces of any size", anyPieces},
		{"the caller may reuse the slice after Write", reusedSlice},
	}
}

func zeroByteWrites(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		for _, p := range [][]byte{nil, {}} {
			n, err := opened.Write(p)
			require.NoError(t, err, c.name)
			require.Zero(t, n, c.name)
		}
		_, err := opened.Write([]byte{42})
		require.NoError(t, err, c.name)
		_, err = opened.Write(nil)
		require.NoError(t, err, c.name)
		require.NoError(t, opened.CloseWrite(), c.name)
		got, err := readAll(t, accepted)
		require.NoError(t, err, c.name)
		require.Equal(t, []byte{42}, got, c.name)
		n, err := accepted.Read(nil)
		require.Zero(t, n, c.name)
		if err != nil {
			require.ErrorIs(t, err, io.EOF, "%s: a Read of nothing at the end", c.name)
		}
	})
}

func singleBytes(t *trial) {
	const size = 5000
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		write := async(func() error {
			for _, b := range pattern(0, size) {
				if _, err := opened.Write([]byte{b}); err != nil {
					return err
				}
			}
			return opened.CloseWrite()
		})
		got, err := readAll(t, accepted)
		require.NoError(t, err, c.name)
		require.Len(t, got, size, c.name)
		requirePattern(t, got)
		require.NoError(t, wait(t, write, c.name+": the writer"), c.name)
	})
}

func anyPieces(t *trial) {
	const size = 2 << 20
	t.eachWay(func(c oneWay) {
		random := rand.New(rand.NewPCG(1, 2)) // the same pieces in every run
		var cuts []int
		for total := 0; total < size; {
			n := min(size-total, 1+random.IntN(1<<random.IntN(19)))
			cuts = append(cuts, n)
			total += n
		}
		opened, accepted := t.open(c)
		write := async(func() error {
			at := 0
			for _, n := range cuts {
				written, err := opened.Write(pattern(at, n))
				if err != nil || written != n {
					return fmt.Errorf("Write of %d bytes returned %d, %w", n, written, err)
				}
				at += n
			}
			return opened.Close()
		})
		read := async(func() error {
			var got bytes.Buffer
			for i := 0; ; i++ {
				p := make([]byte, 1+cuts[len(cuts)-1-i%len(cuts)]%10_000)
				n, err := accepted.Read(p)
				got.Write(p[:n])
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
			}
			if !bytes.Equal(got.Bytes(), pattern(0, size)) {
				return fmt.Errorf("what arrived (%d bytes) is not what was written (%d bytes)", got.Len(), size)
			}
			return nil
		})
		require.NoError(t, wait(t, write, c.name+": the writer"), c.name)
		require.NoError(t, wait(t, read, c.name+": the reader"), c.name)
	})
}

// reusedSlice overwrites the slice after each Write and each timeout: a carrier
// that still refers to it would send the wrong bytes.
func reusedSlice(t *trial) {
	const pieces, size = 200, 8 << 10
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		write := async(func() error {
			p := make([]byte, size)
			for i := range pieces {
				copy(p, pattern(i*size, size))
				if _, err := opened.Write(p); err != nil {
					return err
				}
				clear(p)
			}
			return opened.CloseWrite()
		})
		got, err := readAll(t, accepted)
		require.NoError(t, err, c.name)
		require.Len(t, got, pieces*size, c.name)
		requirePattern(t, got)
		require.NoError(t, wait(t, write, c.name+": the writer"), c.name)
	})
}
