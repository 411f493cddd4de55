package mem_test

import (
	"context"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

func TestDeadlinesAreExactInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{Window: 10})
		opened, _ := open(t, gateway, agent)
		start := time.Now()
		require.NoError(t, opened.SetReadDeadline(start.Add(time.Hour)))
		require.NoError(t, opened.SetWriteDeadline(start.Add(2*time.Hour)))
		_, err := opened.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(start))
		n, err := opened.Write(make([]byte, 11))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 10, n)
		require.Equal(t, 2*time.Hour, time.Since(start))
	})
}

func TestAMovedDeadlineIsExactInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{})
		opened, _ := open(t, gateway, agent)
		start := time.Now()
		require.NoError(t, opened.SetReadDeadline(start.Add(time.Minute)))
		go func() {
			<-time.After(30 * time.Second)
			_ = opened.SetReadDeadline(start.Add(time.Hour)) // fails only after Close
		}()
		_, err := opened.Read(make([]byte, 1))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, time.Hour, time.Since(start))
	})
}

// Time in a bubble advances only while all goroutines are blocked for good, and
// a goroutine that waits for a mutex does not count as blocked.
func TestEveryWaitLetsTimeAdvance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &mem.Listener{Window: 10, MaxStreams: 1, Backlog: 1}
		agent, gateway := connect(t, l)
		opened, accepted := open(t, gateway, agent)
		const limit = time.Minute
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		waiting := &mem.Dialer{Listener: l}
		_, err := waiting.Dial(t.Context(), "") // fills the backlog
		require.NoError(t, err)

		start := time.Now()
		deadline := start.Add(limit)
		require.NoError(t, opened.SetDeadline(deadline))
		require.NoError(t, accepted.SetDeadline(deadline))
		calls := map[string]func() error{
			"Read":         func() error { _, err := opened.Read(make([]byte, 1)); return err },
			"another Read": func() error { _, err := opened.Read(make([]byte, 1)); return err },
			"AcceptStream": func() error { _, err := agent.AcceptStream(ctx); return err },
			"OpenStream":   func() error { _, err := gateway.OpenStream(ctx); return err },
			"Dial":         func() error { _, err := waiting.Dial(ctx, ""); return err },
			"Accept":       func() error { _, err := (&mem.Listener{}).Accept(ctx); return err },
			// Both at once: the second waits for the first.
			"Write":         func() error { _, err := opened.Write(make([]byte, 20)); return err },
			"another Write": func() error { _, err := opened.Write(make([]byte, 20)); return err },
		}
		type end struct {
			what  string
			err   error
			after time.Duration
		}
		ends := make(chan end, len(calls))
		for what, call := range calls {
			go func() {
				err := call()
				ends <- end{what, err, time.Since(start)}
			}()
		}
		for range calls {
			e := <-ends
			require.Error(t, e.err, e.what)
			require.Equal(t, limit, e.after, e.what)
		}
	})
}

func TestOneBubbleDoesNotTouchTheNext(t *testing.T) {
	for range 5 {
		synctest.Test(t, func(t *testing.T) {
			agent, gateway := connect(t, &mem.Listener{})
			opened, accepted := open(t, gateway, agent)
			go func() {
				_, _ = io.Copy(accepted, accepted) // fails at the other end
				_ = accepted.Close()
			}()
			require.NoError(t, opened.SetDeadline(time.Now().Add(time.Hour)))
			_, err := opened.Write(make([]byte, 1<<10))
			require.NoError(t, err)
			_, err = io.ReadFull(opened, make([]byte, 1<<10))
			require.NoError(t, err)
			require.NoError(t, opened.Close())
			synctest.Wait()
		})
	}
}

// open opens a stream and accepts it; the byte that made it visible is read.
func open(tb testing.TB, from, to transport.Mux) (opened, accepted transport.Stream) {
	tb.Helper()
	opened, err := from.OpenStream(tb.Context())
	require.NoError(tb, err)
	_, err = opened.Write([]byte{0})
	require.NoError(tb, err)
	accepted, err = to.AcceptStream(tb.Context())
	require.NoError(tb, err)
	_, err = accepted.Read(make([]byte, 1))
	require.NoError(tb, err)
	return opened, accepted
}
