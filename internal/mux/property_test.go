package mux_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// half is what the model knows of one direction of a stream.
type half struct {
	written, read int
	ended         bool // by CloseWrite or Close of its writer
}

// conversation is a stream with what the model knows of it. Index 0 is the opener.
type conversation struct {
	number int
	ends   [2]transport.Stream
	to     [2]half // toward that end
	closed [2]bool
	reset  bool
}

// pattern is the byte at a position of a direction of a stream.
func pattern(stream, to, at int) byte { return byte(stream*31 + to*17 + at*7 + at>>8) }

// Random operations on both sides must do what the model of a few lines says. Time
// stands still, so that an operation which waits for ever is found at once.
func TestRandomOperationsDoWhatAModelSays(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { play(t, rand.New(rand.NewPCG(seed, 7))) })
		})
	}
}

func play(t *testing.T, random *rand.Rand) {
	a, b := net.Pipe()
	cfg := mux.Config{MaxStreams: 8, WindowBudget: 600 << 10, Budget: mux.NewBudget(900 << 10)}
	sides := [2]*mux.Mux{mux.New(a, true, tls.ConnectionState{}, cfg), mux.New(b, false, tls.ConnectionState{}, cfg)}
	var open []*conversation
	for step := range 600 {
		if len(open) < 6 && random.IntN(8) == 0 {
			open = append(open, begin(t, step, sides, random.IntN(2)))
			continue
		}
		if len(open) == 0 {
			continue
		}
		i := random.IntN(len(open))
		c := open[i]
		c.step(t, fmt.Sprintf("step %d, stream %d", step, c.number), random)
		if c.closed[0] && c.closed[1] {
			open = slices.Delete(open, i, i+1)
		}
		for _, m := range sides {
			require.NoError(t, m.Context().Err())
		}
	}
	for _, c := range open {
		require.NoError(t, c.ends[0].Close())
		require.NoError(t, c.ends[1].Close())
	}
	synctest.Wait()
	for _, m := range sides {
		require.Zero(t, m.Streams(), "all is forgotten")
		require.EqualValues(t, 600<<10, m.BudgetLeft(), "all was given back")
	}
	require.EqualValues(t, 900<<10, cfg.Budget.Left(), "all was given back")
	require.NoError(t, sides[0].CloseWithError(transport.NoError, ""))
	require.NoError(t, sides[1].CloseWithError(transport.NoError, ""))
}

func begin(t *testing.T, number int, sides [2]*mux.Mux, opener int) *conversation {
	c := conversation{number: number}
	var err error
	c.ends[0], err = sides[opener].OpenStream(t.Context())
	require.NoError(t, err)
	_, err = c.ends[0].Write(nil)
	require.NoError(t, err)
	c.ends[1], err = sides[1-opener].AcceptStream(t.Context())
	require.NoError(t, err)
	return &c
}

// step does something at one end.
func (c *conversation) step(t *testing.T, what string, random *rand.Rand) {
	me := random.IntN(2)
	peer := 1 - me
	s := c.ends[me]
	switch random.IntN(16) {
	case 0:
		c.closed[me] = true
		if !c.reset {
			c.to[peer].ended = true
		}
		require.NoError(t, s.Close(), what)
	case 1:
		if !c.closed[me] && !c.reset {
			c.reset = true
			require.NoError(t, s.Reset(transport.Denied), what)
			synctest.Wait()
		}
	case 2, 3:
		err := s.CloseWrite()
		switch {
		case c.closed[me]:
			require.ErrorIs(t, err, net.ErrClosed, what)
		case c.reset:
			require.ErrorIs(t, err, transport.Denied, what)
		default:
			require.NoError(t, err, what)
			c.to[peer].ended = true
		}
	case 4, 5, 6, 7, 8, 9:
		c.write(t, what, me, 1+random.IntN(1<<random.IntN(16)))
	default:
		c.read(t, what, me, 1+random.IntN(1<<random.IntN(17)))
	}
}

// write writes as much as fits into the smallest window, of which a quarter may be
// used up before there is new credit, and finds out what the other end has done.
func (c *conversation) write(t *testing.T, what string, me, n int) {
	to := 1 - me
	h := &c.to[to]
	n = min(n, 12<<10-(h.written-h.read))
	if n <= 0 {
		return
	}
	p := make([]byte, n)
	for i := range p {
		p[i] = pattern(c.number, to, h.written+i)
	}
	synctest.Wait() // what the other end did has arrived
	k, err := c.ends[me].Write(p)
	switch {
	case c.closed[me], h.ended && !c.reset:
		require.ErrorIs(t, err, net.ErrClosed, what)
	case c.reset:
		require.ErrorIs(t, err, transport.Denied, what)
	case c.closed[to]:
		require.ErrorIs(t, err, transport.Canceled, what)
	default:
		require.NoError(t, err, what)
		require.Equal(t, n, k, what)
		h.written += n
		return
	}
	require.Zero(t, k, what)
}

// read reads what must be there, or finds out that there is nothing.
func (c *conversation) read(t *testing.T, what string, me, n int) {
	h := &c.to[me]
	s := c.ends[me]
	synctest.Wait()
	p := make([]byte, n)
	require.Equal(t, c.closed[me], s.SetReadDeadline(time.Now().Add(time.Second)) != nil, what)
	k, err := s.Read(p)
	switch {
	case c.closed[me]:
		require.ErrorIs(t, err, net.ErrClosed, what)
	case c.reset:
		require.ErrorIs(t, err, transport.Denied, what)
	case h.read < h.written:
		require.NoError(t, err, what)
		require.Equal(t, min(n, h.written-h.read), k, "%s: a Read takes all that is there", what)
		for i := range k {
			if p[i] != pattern(c.number, me, h.read+i) {
				t.Fatalf("%s: byte %d is not what was written", what, h.read+i)
			}
		}
		h.read += k
		return
	case h.ended:
		require.Equal(t, io.EOF, err, what)
	default:
		var timeout net.Error
		require.True(t, errors.As(err, &timeout) && timeout.Timeout(), "%s: %v", what, err)
	}
	require.Zero(t, k, what)
}
