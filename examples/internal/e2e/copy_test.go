package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/examples/internal/pgtest"
)

// copySize is how much is copied in each direction.
func copySize() int {
	if testing.Short() {
		return 16 << 20
	}
	return 100 << 20
}

func TestPostgresCopy(t *testing.T) {
	overEachCarrier(t, pgtest.Start(t), func(t *testing.T, s *system) {
		t.Run("what goes in comes out", func(t *testing.T) {
			conn := s.connect(t, nil)
			_, err := conn.Exec(t.Context(), "drop table if exists rows; create unlogged table rows (n int, line text)")
			require.NoError(t, err)

			in := sha256.New()
			source := newRows(copySize())
			tag, err := conn.PgConn().CopyFrom(t.Context(), io.TeeReader(source, in), "copy rows from stdin")
			require.NoError(t, err)
			assert.EqualValues(t, source.n, tag.RowsAffected())

			out := &counter{}
			hash := sha256.New()
			_, err = conn.PgConn().CopyTo(t.Context(), io.MultiWriter(hash, out), "copy (select n, line from rows order by n) to stdout")
			require.NoError(t, err)
			assert.GreaterOrEqual(t, out.n, copySize())
			assert.Equal(t, hex.EncodeToString(in.Sum(nil)), hex.EncodeToString(hash.Sum(nil)))
		})
	})
}

// rows is a table in COPY's text format, of at least size bytes.
type rows struct {
	text    []byte // each line is a piece of it
	size    int
	n, made int // lines, bytes
	rest    []byte
}

func newRows(size int) *rows {
	raw := make([]byte, 1<<20)
	_, _ = rand.NewChaCha8([32]byte{}).Read(raw) // never fails
	return &rows{size: size, text: hex.AppendEncode(nil, raw)}
}

func (r *rows) Read(b []byte) (filled int, err error) {
	const line = 1 << 10
	for filled < len(b) {
		if len(r.rest) == 0 && r.made >= r.size {
			break
		}
		if len(r.rest) == 0 {
			r.n++
			start := r.n * 7919 % (len(r.text) - line)
			r.rest = fmt.Appendf(r.rest, "%d\t%s\n", r.n, r.text[start:start+line])
			r.made += len(r.rest)
		}
		n := copy(b[filled:], r.rest)
		r.rest = r.rest[n:]
		filled += n
	}
	if filled == 0 {
		return 0, io.EOF
	}
	return filled, nil
}

type counter struct{ n int }

func (c *counter) Write(b []byte) (int, error) {
	c.n += len(b)
	return len(b), nil
}
