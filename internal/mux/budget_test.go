package mux_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

// pipes makes a connection inside a bubble, with a Config for each side.
func pipes(t *testing.T, agentConfig, gatewayConfig mux.Config) (agent, gateway *mux.Mux) {
	a, b := net.Pipe()
	agent, gateway = mux.New(a, true, tls.ConnectionState{}, agentConfig), mux.New(b, false, tls.ConnectionState{}, gatewayConfig)
	t.Cleanup(func() {
		_ = agent.CloseWithError(transport.NoError, "")
		_ = gateway.CloseWithError(transport.NoError, "")
	})
	return agent, gateway
}

// both opens a stream and accepts it.
func both(t *testing.T, from, to *mux.Mux) (opened, accepted transport.Stream) {
	t.Helper()
	opened, err := from.OpenStream(t.Context())
	require.NoError(t, err)
	_, err = opened.Write(nil)
	require.NoError(t, err)
	accepted, err = to.AcceptStream(t.Context())
	require.NoError(t, err)
	return opened, accepted
}

// stuff writes until nothing more is taken and returns how much was.
func stuff(t *testing.T, s transport.Stream) int {
	t.Helper()
	require.NoError(t, s.SetWriteDeadline(time.Now().Add(time.Minute)))
	n, err := s.Write(make([]byte, 20<<20))
	require.ErrorIs(t, err, os.ErrDeadlineExceeded)
	require.NoError(t, s.SetWriteDeadline(time.Time{}))
	return n
}

func TestStalledStreamsShareTheBudgetAndStillHaveTheirLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := mux.NewBudget(900 << 10)
		cfg := mux.Config{WindowBudget: 600 << 10, Budget: shared}
		for range 2 {
			agent, gateway := pipes(t, mux.Config{}, cfg)
			for _, way := range [][2]*mux.Mux{{agent, gateway}, {gateway, agent}} {
				var taken []int
				for range 4 {
					var s transport.Stream
					if way[0] == agent {
						s, _ = both(t, agent, gateway)
					} else {
						_, s = both(t, gateway, agent)
					}
					taken = append(taken, stuff(t, s))
				}
				if way[0] == agent && shared.Left() > 400<<10 {
					require.Equal(t, []int{256 << 10, 256 << 10, 16 << 10, 16 << 10}, taken, "the budget of the connection is used up")
				}
				for _, n := range taken {
					require.GreaterOrEqual(t, n, 16<<10)
				}
			}
			require.GreaterOrEqual(t, gateway.BudgetLeft(), int64(0))
		}
		require.GreaterOrEqual(t, shared.Left(), int64(0))
		require.Less(t, shared.Left(), int64(240<<10), "the budget of all is used up")
	})
}

func TestWhatAStreamHadGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := pipes(t, mux.Config{}, mux.Config{WindowBudget: 240 << 10})
		for range 5 {
			opened, accepted := both(t, agent, gateway)
			require.Equal(t, 256<<10, stuff(t, opened))
			require.NoError(t, accepted.Close())
			require.NoError(t, opened.Close())
			require.EqualValues(t, 240<<10, gateway.BudgetLeft())
		}
	})
}

func TestTheEndOfAConnectionGivesBackWhatItsStreamsHad(t *testing.T) {
	const all = 10 << 20
	for _, closes := range []int{0, 1} {
		synctest.Test(t, func(t *testing.T) {
			shared := mux.NewBudget(all)
			agent, gateway := pipes(t, mux.Config{}, mux.Config{Budget: shared})
			opened, accepted := both(t, agent, gateway)
			require.Equal(t, 256<<10, stuff(t, opened))
			require.EqualValues(t, all-240<<10, shared.Left())
			require.NoError(t, []transport.Mux{agent, gateway}[closes].CloseWithError(transport.NoError, ""))
			<-gateway.Context().Done()
			synctest.Wait()
			require.EqualValues(t, all, shared.Left(), "nobody has closed the stream")
			_, _ = io.Copy(io.Discard, accepted)
			require.EqualValues(t, all, shared.Left(), "what had arrived asks for no more")
			require.NoError(t, accepted.Close())
			require.EqualValues(t, all, shared.Left())
		})
	}
}

// slowPipe is a pipe whose data takes a while.
type slowPipe struct {
	net.Conn
	delay time.Duration
	way   chan piece
}

type piece struct {
	b  []byte
	at time.Time
}

func newSlowPipe(t *testing.T, conn net.Conn, delay time.Duration) *slowPipe {
	s := &slowPipe{conn, delay, make(chan piece, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for p := range s.way {
			time.Sleep(time.Until(p.at))
			_, _ = s.Conn.Write(p.b)
		}
	}()
	t.Cleanup(func() { close(s.way); <-done })
	return s
}

func (s *slowPipe) Write(p []byte) (int, error) {
	s.way <- piece{append([]byte(nil), p...), time.Now().Add(s.delay)}
	return len(p), nil
}

func TestTheWindowOfAFastReaderOnALongWayGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const delay, size = 50 * time.Millisecond, 64 << 20
		a, b := net.Pipe()
		cfg := mux.Config{}
		agent := mux.New(newSlowPipe(t, a, delay), true, tls.ConnectionState{}, cfg)
		gateway := mux.New(newSlowPipe(t, b, delay), false, tls.ConnectionState{}, cfg)
		opened, accepted := both(t, agent, gateway)
		go func() {
			_, _ = opened.Write(make([]byte, size))
			_ = opened.Close()
		}()
		start := time.Now()
		n, err := io.Copy(io.Discard, accepted)
		require.NoError(t, err)
		require.EqualValues(t, size, n)
		// With a window of 256 KiB it takes 256 round trips.
		require.Less(t, time.Since(start), 20*2*delay)
		require.NoError(t, accepted.Close())
		require.EqualValues(t, 32<<20, gateway.BudgetLeft())
		require.NoError(t, agent.CloseWithError(transport.NoError, ""))
		require.NoError(t, gateway.CloseWithError(transport.NoError, ""))
	})
}

// A reader that has become slow is granted less, and others get what it had.
func TestTheWindowOfASlowReaderShrinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 1 << 20
		agent, gateway := pipes(t, mux.Config{}, mux.Config{WindowBudget: budget})
		opened, accepted := both(t, agent, gateway)
		write := make(chan error, 1)
		go func() {
			_, err := opened.Write(make([]byte, 40<<20))
			write <- err
		}()
		_, err := io.ReadFull(accepted, make([]byte, 10<<20))
		require.NoError(t, err)
		fast := gateway.BudgetLeft()
		require.Less(t, fast, int64(budget-400<<10), "it has grown")
		for range 3000 { // 20 KiB a second
			time.Sleep(time.Second)
			_, err = io.ReadFull(accepted, make([]byte, 10<<10))
			require.NoError(t, err)
		}
		require.Greater(t, gateway.BudgetLeft(), int64(budget-300<<10), "it has shrunk")
		require.NoError(t, accepted.Close())
		require.ErrorIs(t, <-write, transport.Canceled)
		require.NoError(t, opened.Close())
		require.EqualValues(t, budget, gateway.BudgetLeft())
	})
}
