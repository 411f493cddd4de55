package websocket

import (
	"crypto/tls"
	"io"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func TestASenderNeverOverstepsTheWindowAndNeverStarves(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for range 30 {
		in, out := inbound{window: initialWindow}, outbound{limit: initialWindow}
		var flying []int                // frames under way
		var updates []windowUpdate      // updates under way
		unread := uint64(0)             // arrived and not consumed
		largest := 1 << random.IntN(18) // of a Write
		for range 3000 {
			switch random.IntN(4) {
			case 0:
				if n := out.take(1 + random.IntN(largest)); n > 0 {
					flying = append(flying, n)
				}
			case 1:
				if len(flying) > 0 {
					require.NoError(t, in.frame(flying[0]))
					unread += uint64(flying[0])
					flying = flying[1:]
				}
			case 2:
				if unread > 0 {
					n := min(unread, 1+uint64(random.IntN(40_000)))
					unread -= n
					if in.read(int(n)) {
						if random.IntN(8) == 0 && in.window < 4<<20 {
							in.window *= 2
						}
						updates = append(updates, in.tell())
					}
				}
			case 3:
				if len(updates) > 0 {
					require.NoError(t, out.update(updates[0]))
					updates = updates[1:]
				}
			}
			if in.cost-in.told > in.window {
				t.Fatalf("%d bytes are buffered in a window of %d", in.cost-in.told, in.window)
			}
		}
		for _, n := range flying {
			require.NoError(t, in.frame(n))
			unread += uint64(n)
		}
		if unread > 0 && in.read(int(unread)) {
			updates = append(updates, in.tell())
		}
		for _, u := range updates {
			require.NoError(t, out.update(u))
		}
		require.Equal(t, out.bytes, in.arrived)
		require.Equal(t, out.cost, in.freed, "all that was read is free")
		require.Positive(t, out.take(1), "a reader that has read all never leaves the writer waiting")
	}
}

func TestWindowCountersOutliveFourGigabytes(t *testing.T) {
	const sent = 3<<32 - 100_000
	in := inbound{window: initialWindow, arrived: sent, consumed: sent, cost: sent, freed: sent, told: sent}
	out := outbound{bytes: sent, cost: sent, freed: sent, limit: sent + initialWindow}
	for range 100 {
		n := out.take(maxFrame)
		require.Equal(t, maxFrame, n)
		require.NoError(t, in.frame(n))
		if in.read(n) {
			require.NoError(t, out.update(in.tell()))
		}
	}
	require.Greater(t, out.freed, uint64(3<<32))
	require.Equal(t, in.told, out.freed)
}

func TestAWindowIsSmallWhenItsReaderWaitsForThePeer(t *testing.T) {
	const rtt = 100 * time.Millisecond
	for name, c := range map[string]struct {
		quarter time.Duration // how long the reader takes for a quarter of the window
		want    bool
	}{
		"a window each round trip":         {rtt / 4, true},
		"a window in less than four":       {rtt - 1, true},
		"a window in more than four":       {rtt + rtt/20, false},
		"a reader or a peer that is slow":  {10 * rtt, false},
		"a reader that empties it at once": {time.Microsecond, true},
	} {
		in := inbound{window: initialWindow}
		now := time.Now()
		var grew bool
		for range 5 {
			require.NoError(t, in.frame(maxFrame))
			require.NoError(t, in.frame(maxFrame))
			in.read(maxFrame)
			require.True(t, in.read(maxFrame), "a quarter of the window")
			grew = in.small(now, rtt) || grew
			in.tell()
			now = now.Add(c.quarter)
		}
		require.Equal(t, c.want, grew, name)
	}
}

func TestWindowsGrowWithinTheirBudget(t *testing.T) {
	end, write := io.Pipe()
	t.Cleanup(func() { _ = write.Close() })
	cfg := Config{MaxWindow: 900 << 10, WindowBudget: 1 << 20}.withDefaults(time.Second)
	m, err := newMux(&recording{end}, true, time.Hour, tls.ConnectionState{}, cfg)
	require.NoError(t, err)
	t.Cleanup(func() { _, _ = write.Close(), m.CloseWithError(transport.NoError, "") })
	m.mayOpenUpTo(10)
	grown := func() *stream {
		opened, err := m.OpenStream(t.Context())
		require.NoError(t, err)
		s := opened.(*stream)
		for range 1000 { // any reader is fast beside an hour
			require.NoError(t, s.arrives(maxFrame))
			s.consumed(maxFrame)
		}
		return s
	}
	first := grown()
	require.EqualValues(t, 900<<10, first.in.window, "doubled up to the largest")
	second := grown()
	require.EqualValues(t, 256<<10, second.in.window-initialWindow, "what is left takes one doubling")
	require.EqualValues(t, initialWindow, grown().in.window, "nothing is left for the third")
	for range (900<<10)/(maxFrame+frameOverhead) - 8 {
		require.NoError(t, first.arrives(maxFrame))
	}
	require.NoError(t, first.Close())
	require.NoError(t, first.arrives(1), "what was under way at Close still fits the window it had")
	require.NoError(t, second.Reset(transport.Canceled))
	require.EqualValues(t, 900<<10, grown().in.window, "what ends gives its share back")
}

func TestASenderChecksUpdates(t *testing.T) {
	out := outbound{limit: initialWindow}
	require.Equal(t, maxFrame, out.take(math.MaxInt))
	require.Error(t, out.update(windowUpdate{maxFrame + frameOverhead + 1, initialWindow}), "more than was sent")
	require.Error(t, out.update(windowUpdate{0, largestWindow + 1}), "no bound")
	require.NoError(t, out.update(windowUpdate{maxFrame, 0}))
	require.Equal(t, uint64(initialWindow), out.limit, "what was granted stays granted")
	require.Error(t, out.update(windowUpdate{maxFrame - 1, initialWindow}), "less than before")
	out.giveBack(maxFrame)
	require.Zero(t, out.bytes)
	require.Zero(t, out.cost)
}
