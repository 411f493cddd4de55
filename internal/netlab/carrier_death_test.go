//go:build linux

package netlab

import (
	"sync"
	"testing"
	"time"

	"github.com/outgate/outgate/internal/testnet"
)

// A carrier that sends knows by itself that nobody acknowledges, also between the pings of
// an idle tunnel: by the kernel's TCP user timeout or by its own.
func TestACarrierGivesUpOnAPeerThatAcknowledgesNothing(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		sending := kinds[1:]
		s := newScene(t, c, sceneConfig{agents: len(sending), backoffMax: time.Second, quiet: true})
		var trials sync.WaitGroup
		for i, agent := range s.agents {
			trials.Go(func() {
				if err := s.unacknowledged(t, agent, sending[i]); err != nil {
					t.Error(err)
				}
			})
		}
		trials.Wait()
	})
}

func (s *scene) unacknowledged(t *testing.T, agent *process, f flow) error {
	f, err := s.open(agent, f)
	if err != nil {
		return err
	}
	pause(t.Context(), 500*time.Millisecond)
	atGateway, atAgent := s.gateway.mark(), agent.mark()
	began := time.Now()
	gaveUp := func(who string) func(time.Duration) {
		return func(took time.Duration) {
			t.Logf("%d bytes every %s: the %s gave up after %s", f.Chunk, f.Pace, who, took.Round(time.Millisecond))
		}
	}
	return firstOf(
		agent.host.Filter(testnet.Filter{DropTo: true, DropFrom: true}),
		s.broken(s.gateway, atGateway, agent.name, []flow{f}, began, gaveUp("gateway")),
		s.broken(agent, atAgent, agent.name, []flow{f}, began, gaveUp("agent")),
	)
}
