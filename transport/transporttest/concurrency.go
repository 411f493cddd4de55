package transporttest

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func concurrencyTests() []test {
	return []test{
		{"all methods of a stream at once", stormOnStreams},
		{"opening, accepting and closing at once", stormOnConnection},
		{"CloseWithError from everywhere at once", stormOfCloses},
	}
}

// stormOnStreams calls everything on both ends of the same streams. What the
// calls return may be nonsense; they must return, and the connection must live.
func stormOnStreams(t *trial) {
	rounds := 30
	if testing.Short() {
		rounds = 10
	}
	t.eachWay(func(c oneWay) {
		for round := range rounds {
			opened, accepted := t.open(c)
			var wg sync.WaitGroup
			for i, s := range []transport.Stream{opened, accepted} {
				for worker := range 6 {
					random := rand.New(rand.NewPCG(uint64(round), uint64(10*i+worker)))
					wg.Go(func() { useWildly(s, random) })
				}
			}
			done := async(func() error { wg.Wait(); return nil })
			_ = waitLong(t, done, c.name+": calls on one stream") // always nil
			_ = opened.Close()
			_ = accepted.Close()
		}
		t.requireHealthy(c)
	})
}

// useWildly makes a few random calls. Deadlines keep them short.
func useWildly(s transport.Stream, random *rand.Rand) {
	buf := make([]byte, 4096)
	_ = s.SetDeadline(time.Now().Add(time.Duration(random.IntN(20)) * time.Millisecond))
	for range 20 {
		switch random.IntN(12) {
		case 0, 1, 2:
			_, _ = s.Read(buf[:1+random.IntN(len(buf))])
		case 3, 4, 5:
			_, _ = s.Write(buf[:random.IntN(len(buf))])
		case 6:
			_ = s.SetReadDeadline(time.Now().Add(time.Duration(random.IntN(5)) * time.Millisecond))
		case 7:
			_ = s.SetWriteDeadline(time.Now().Add(time.Duration(random.IntN(5)) * time.Millisecond))
		case 8:
			_, _ = s.LocalAddr(), s.RemoteAddr()
		case 9:
			_ = s.CloseWrite()
		case 10:
			if random.IntN(4) == 0 {
				_ = s.Close()
			}
		case 11:
			if random.IntN(4) == 0 {
				_ = s.Reset(transport.Canceled)
			}
		}
	}
	_ = s.Close() // without which a Read may outlive a deadline that another call moved
}

// stormOnConnection opens and accepts from many goroutines on both sides until
// one side closes in the middle of it.
func stormOnConnection(t *trial) {
	t.eachWay(func(c oneWay) {
		var wg sync.WaitGroup
		for range 4 {
			for _, m := range []transport.Mux{c.opener, c.acceptor} {
				wg.Go(func() { openUntilClosed(m) })
				wg.Go(func() { acceptUntilClosed(m) })
			}
		}
		storm := async(func() error { wg.Wait(); return nil })
		stays(t, storm, 200*time.Millisecond, c.name+": opening and accepting ended by itself")
		require.NoError(t, c.acceptor.CloseWithError(transport.Draining, ""), c.name)
		_ = waitLong(t, storm, c.name+": opening and accepting after the end") // always nil
	})
}

func openUntilClosed(m transport.Mux) {
	for {
		s, err := m.OpenStream(context.Background())
		if err != nil {
			return
		}
		_, _ = s.Write([]byte{greeting})
		_ = s.Close()
	}
}

func acceptUntilClosed(m transport.Mux) {
	for {
		s, err := m.AcceptStream(context.Background())
		if err != nil {
			return
		}
		_, _ = s.Read(make([]byte, 1))
		_ = s.Close()
	}
}

func stormOfCloses(t *trial) {
	for range 5 {
		p := t.connect()
		var wg sync.WaitGroup
		errs := make(chan error, 16)
		for i := range 8 {
			wg.Go(func() { errs <- p.Dialed.CloseWithError(transport.Code(i), "dialed") })
			wg.Go(func() { errs <- p.Accepted.CloseWithError(transport.Code(i), "accepted") })
		}
		done := async(func() error { wg.Wait(); return nil })
		_ = wait(t, done, "CloseWithError from everywhere") // always nil
		close(errs)
		for err := range errs {
			require.NoError(t, err)
		}
		for _, m := range []transport.Mux{p.Dialed, p.Accepted} {
			require.ErrorIs(t, causeOf(t, m, "after all the closes"), net.ErrClosed)
		}
	}
}
