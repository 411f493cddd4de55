//go:build linux

package netlab

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

func TestTransfersSurviveLoss(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1})
		agent := s.agents[0]
		for _, percent := range []int{1, 5, 10} {
			require.NoError(t, agent.host.Filter(testnet.Filter{Loss: float64(percent) / 100}))
			began := time.Now()
			err := s.transfer(agent, flow{Size: 1 << 20, Chunk: 16 << 10}, time.Minute)
			require.NoError(t, err, "at %d %% loss", percent)
			t.Logf("%2d %% loss both ways: 1 MiB each way in %s", percent, time.Since(began).Round(time.Millisecond))
		}
		require.Empty(t, s.deaths(), "loss alone does not end a connection")
	})
}

// At 20 % loss in both directions TCP can fall silent for longer than a peer is waited
// for: a third of its retransmissions fail, and each waits twice as long as the one
// before. What does not complete must say so; a later attempt does.
func TestTransfersSurviveHeavyLossInTheEnd(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1, backoffMax: time.Second})
		agent := s.agents[0]
		require.NoError(t, agent.host.Filter(testnet.Filter{Loss: 0.2}))
		began := time.Now()
		attempts := 1
		for ; ; attempts++ {
			err := s.transfer(agent, flow{Size: 64 << 10, Chunk: 16 << 10}, time.Minute)
			if err == nil {
				break
			}
			t.Log(err)
			require.Less(t, time.Since(began), 2*time.Minute)
			pause(t.Context(), time.Second)
		}
		s.requireTruth(t, agent)
		t.Logf("20 %% loss both ways: 64 KiB each way in %s, at attempt %d, after %d deaths",
			time.Since(began).Round(time.Millisecond), attempts, len(s.deaths()))
	})
}

// deaths are the ends of connections that the agents have seen.
func (s *scene) deaths() (down []event) {
	for _, a := range s.agents {
		for _, e := range a.since(0) {
			if e.Kind == "down" {
				down = append(down, e)
			}
		}
	}
	return down
}

// requireTruth checks that no flow has ended in a way that a bad network does not explain.
func (s *scene) requireTruth(t *testing.T, sides ...*process) {
	t.Helper()
	for _, p := range append(sides, s.gateway) {
		for _, e := range p.since(0) {
			if e.Kind == "flow" {
				require.Empty(t, e.Ending.Corrupt, "%s: %+v", p.name, e)
			}
		}
	}
}
