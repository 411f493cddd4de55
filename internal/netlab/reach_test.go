//go:build linux

package netlab

import (
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

func TestASlowLinkIsNotADeadOne(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 2})
		var trials sync.WaitGroup
		for i, mbit := range []int64{1, 10} {
			trials.Go(func() {
				if err := s.crowd(t, s.agents[i], mbit); err != nil {
					t.Errorf("at %d Mbit/s: %v", mbit, err)
				}
			})
		}
		trials.Wait()
		require.Empty(t, s.deaths(), "a slow link is not a dead one")
		s.requireTruth(t, s.agents...)
	})
}

// crowd fills a slow link for longer than a silent peer is waited for, and asks something
// small all the time.
func (s *scene) crowd(t *testing.T, agent *process, mbit int64) error {
	if err := agent.host.Rate(mbit * 1_000_000); err != nil {
		return err
	}
	size := mbit << 19 // two of them take 8 s each way
	if full() {
		size *= 3
	}
	bulk := flow{Size: size, Chunk: 32 << 10}
	began := time.Now()
	var transfers sync.WaitGroup
	failed := make(chan error, 2)
	for range cap(failed) {
		transfers.Go(func() { failed <- s.transfer(agent, bulk, 2*time.Minute) })
	}
	var slowest time.Duration
	asked := 0
	for done := false; !done; asked++ {
		pause(t.Context(), 200*time.Millisecond)
		asking := time.Now()
		if err := s.transfer(agent, flow{Size: 100, Chunk: 100}, time.Minute); err != nil {
			return err
		}
		slowest = max(slowest, time.Since(asking))
		done = len(failed) == cap(failed)
	}
	transfers.Wait()
	t.Logf("%2d Mbit/s: %d KiB each way in %s; of %d questions meanwhile the slowest took %s",
		mbit, 2*size>>10, time.Since(began).Round(time.Millisecond), asked, slowest.Round(time.Millisecond))
	return firstOf(<-failed, <-failed)
}

func TestAFlappingLinkBreaksNothing(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1})
		agent := s.agents[0]
		done := make(chan error, 1)
		go func() {
			done <- s.transfer(agent, flow{Size: 100 << 10, Chunk: 1 << 10, Pace: 50 * time.Millisecond}, time.Minute)
		}()
		var longest time.Duration
		for range 3 {
			down := time.Now()
			require.NoError(t, agent.host.Unplug(true))
			pause(t.Context(), time.Second)
			require.NoError(t, agent.host.Unplug(false))
			longest = max(longest, time.Since(down))
			pause(t.Context(), 500*time.Millisecond)
		}
		err := <-done
		s.requireTruth(t, agent)
		if longest > 3*time.Second { // TCP may then be silent for longer than the liveness waits
			t.Logf("this machine is too busy to flap: the link was down for %s; the transfer: %v", longest, err)
			return
		}
		require.NoError(t, err)
		require.Empty(t, s.deaths())
	})
}

func TestAnAgentThatMovesComesBack(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1, backoffMax: time.Second})
		agent := s.agents[0]
		flows, err := s.openKinds(agent)
		require.NoError(t, err)
		mark, atAgent := s.gateway.mark(), agent.mark()
		moved := time.Now()
		require.NoError(t, agent.host.Move())
		// A connection may follow its agent, or die and be replaced.
		if e, err := agent.await(atAgent, promised+5*time.Second, func(e event) bool { return e.Kind == "down" }); err == nil {
			t.Logf("the agent noticed after %s: %s", e.At.Sub(moved).Round(time.Millisecond), e.Error)
			_, err := agent.await(atAgent, time.Minute, func(e event) bool { return e.Kind == "connected" })
			require.NoError(t, err)
			require.NoError(t, s.broken(s.gateway, mark, agent.name, flows, moved, func(took time.Duration) {
				t.Logf("the gateway noticed after %s", took.Round(time.Millisecond))
			}))
		} else {
			t.Log("the connection has followed the agent")
		}
		require.NoError(t, s.transfer(agent, flow{Size: 1 << 20, Chunk: 32 << 10}, time.Minute))
		s.requireTruth(t, agent)
	})
}

func TestASlowReaderOnALossyLinkGetsItAll(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1})
		agent := s.agents[0]
		require.NoError(t, agent.host.Filter(testnet.Filter{Loss: 0.03}))
		slow := make(chan error, 1)
		go func() {
			slow <- s.transfer(agent, flow{Size: 4 << 20, Chunk: 32 << 10, Drag: 20 * time.Millisecond}, time.Minute)
		}()
		for range 20 {
			require.NoError(t, s.transfer(agent, flow{Size: 32 << 10, Chunk: 8 << 10}, time.Minute))
		}
		require.NoError(t, <-slow)
		require.Empty(t, s.deaths())
	})
}
