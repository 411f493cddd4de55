package testnet

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// arrivals notes what comes out of a line and when.
type arrivals struct {
	mu    sync.Mutex
	began time.Time
	what  []byte
	when  []time.Duration
}

func (a *arrivals) out(b []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.what = append(a.what, b[0])
	a.when = append(a.when, time.Since(a.began))
}

// send puts n packets of 1000 bytes on a line, one each millisecond, and waits.
func send(n int, seed uint64, stream bool, c Conditions) *arrivals {
	a := &arrivals{began: time.Now()}
	l := newLine(seed, 0, stream, c, a.out)
	for i := range n {
		b := make([]byte, 1000)
		b[0] = byte(i)
		l.send(b)
		time.Sleep(time.Millisecond)
	}
	time.Sleep(time.Minute)
	l.stop()
	<-l.done
	return a
}

func TestALineDelaysByWhatItWasTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := send(3, 1, false, Conditions{Delay: 50 * time.Millisecond})
		ms := time.Millisecond
		require.Equal(t, []time.Duration{50 * ms, 51 * ms, 52 * ms}, a.when)
	})
}

func TestJitterReordersDatagramsAndNotStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Conditions{Jitter: 50 * time.Millisecond}
		require.False(t, slices.IsSorted(send(100, 1, false, c).what))
		stream := send(100, 1, true, c)
		require.True(t, slices.IsSorted(stream.what))
		require.Len(t, stream.what, 100)
	})
}

func TestReorderedDatagramsAreOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := send(100, 1, false, Conditions{Reorder: 0.1})
		require.Len(t, a.what, 100)
		require.False(t, slices.IsSorted(a.what))
	})
}

func TestLossIsDecidedByTheSeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Conditions{Loss: 0.2}
		first := send(200, 7, false, c).what
		require.InDelta(t, 160, len(first), 25)
		require.Equal(t, first, send(200, 7, false, c).what)
		require.NotEqual(t, first, send(200, 8, false, c).what)
		c.Delay = time.Second
		require.Equal(t, first, send(200, 7, false, c).what, "other conditions draw the same lots")
	})
}

func TestRateSpacesPackets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := send(10, 1, false, Conditions{Rate: 100_000})
		ms := time.Millisecond
		require.Equal(t, []time.Duration{10 * ms, 20 * ms, 30 * ms}, a.when[:3])
		require.Len(t, send(200, 1, true, Conditions{Rate: 100_000}).what, 200, "a stream waits")
		require.Less(t, len(send(200, 1, false, Conditions{Rate: 100_000}).what), 50, "datagrams are dropped")
	})
}

func TestAStallHoldsBackUntilItIsLifted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &arrivals{began: time.Now()}
		l := newLine(1, 0, true, Conditions{Stall: true}, a.out)
		l.send([]byte{1})
		time.Sleep(time.Hour)
		require.Empty(t, a.what)
		l.set(Conditions{})
		synctest.Wait()
		require.Equal(t, []time.Duration{time.Hour}, a.when)
		l.stop()
		<-l.done
	})
}

func TestLongPacketsFallIntoAnMTUHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Empty(t, send(5, 1, false, Conditions{MTU: 999}).what)
		require.Len(t, send(5, 1, false, Conditions{MTU: 1000}).what, 5)
	})
}
