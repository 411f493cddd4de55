package cork_test

import (
	"bytes"
	"errors"
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/cork"
)

// wire remembers each Write.
type wire struct {
	net.Conn
	mu     sync.Mutex
	writes [][]byte
	err    error
}

func (w *wire) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err != nil {
		return 0, w.err
	}
	w.writes = append(w.writes, bytes.Clone(p))
	return len(p), nil
}

func (w *wire) all() []byte { return bytes.Join(w.writes, nil) }

func TestWhatIsWrittenWhileCorkedLeavesAtOnce(t *testing.T) {
	w := &wire{}
	c := cork.New(w)
	_, err := c.Write([]byte("before "))
	require.NoError(t, err)
	require.Len(t, w.writes, 1, "it is not corked")
	for range 3 {
		c.Cork()
		p := []byte("one ")
		_, err = c.Write(p)
		require.NoError(t, err)
		clear(p) // it is the caller's again
		_, err = c.Write([]byte("two "))
		require.NoError(t, err)
		sent := len(w.writes)
		require.NoError(t, c.Uncork())
		require.Len(t, w.writes, sent+1)
		require.Equal(t, "one two ", string(w.writes[sent]))
	}
	sent := len(w.writes)
	require.NoError(t, c.Uncork(), "with nothing to write")
	require.Len(t, w.writes, sent)
}

func TestALargeBatchLeavesInFewWritesAndInItsOrder(t *testing.T) {
	w := &wire{}
	c := cork.New(w)
	c.Cork()
	var want []byte
	for i := range 24 { // 4 KiB records, as a masking client makes them
		p := bytes.Repeat([]byte{byte(i)}, 4<<10+22)
		want = append(want, p...)
		_, err := c.Write(p)
		require.NoError(t, err)
	}
	large := bytes.Repeat([]byte("x"), 200<<10)
	_, err := c.Write(large)
	require.NoError(t, err)
	require.NoError(t, c.Uncork())
	require.Equal(t, append(want, large...), w.all())
	require.LessOrEqual(t, len(w.writes), 4)
}

func TestAnErrorOfTheNetworkIsThatOfUncorkOrALaterWrite(t *testing.T) {
	broken := errors.New("the modem was unplugged")
	c := cork.New(&wire{err: broken})
	c.Cork()
	_, err := c.Write([]byte("x"))
	require.NoError(t, err)
	require.ErrorIs(t, c.Uncork(), broken)
	c.Cork()
	_, err = c.Write(make([]byte, 60<<10))
	require.NoError(t, err)
	_, err = c.Write(make([]byte, 60<<10))
	require.ErrorIs(t, err, broken)
}

// TLS writes on its own when its peer asks for new keys, from the goroutine that
// reads.
func TestWritesAndCorksMayComeFromAnywhere(t *testing.T) {
	w := &wire{}
	c := cork.New(w)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				c.Cork()
				_, _ = c.Write([]byte("xx"))
				_ = c.Uncork()
			}
		})
	}
	wg.Wait()
	require.NoError(t, c.Uncork())
	require.Len(t, w.all(), 8000)
}
