//go:build linux

package netlab

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
	"github.com/outgate/outgate/transport"
)

const (
	// promised is within what time both sides know of a dead peer while streams are open.
	promised = 10 * time.Second

	// slack is what a busy machine may add in the full run.
	slack = 2 * time.Second

	// patience is how long a test waits for that. A busy machine is no fault.
	patience = 25 * time.Second
)

// death is a way to lose the peer.
type death struct {
	name  string
	kill  func(p *process) error
	heal  func(p *process) error
	sees  sides // who is left to see it
	quick bool  // the kernel of the dead process tells the other side, where TCP carries
}

type sides int

const (
	far  sides = iota // the other side of the process that died
	both              // the network died between them
)

// deaths of one agent, or of its network.
var agentDeaths = []death{
	{
		name: "agent SIGKILL", quick: true, sees: far,
		kill: func(p *process) error { p.kill(); return nil },
		heal: (*process).start,
	},
	{
		name: "agent SIGSTOP", sees: far,
		kill: func(p *process) error { return p.signal(syscall.SIGSTOP) },
		heal: func(p *process) error { return p.signal(syscall.SIGCONT) },
	},
	{
		name: "half-open", sees: far, // the end of the process is told, but lost
		kill: func(p *process) error { err := p.host.Filter(testnet.Filter{NoEnds: true}); p.kill(); return err },
		heal: func(p *process) error { return firstOf(p.host.Filter(testnet.Filter{}), p.start()) },
	},
	{
		name: "cable", sees: both,
		kill: func(p *process) error { return p.host.Unplug(true) },
		heal: func(p *process) error { return p.host.Unplug(false) },
	},
	filtered("drop both ways", testnet.Filter{DropTo: true, DropFrom: true}),
	filtered("drop to agent", testnet.Filter{DropTo: true}),
	filtered("drop from agent", testnet.Filter{DropFrom: true}),
	filtered("reject", testnet.Filter{Reject: true}),
}

// deaths of the gateway: every agent is a witness.
var gatewayDeaths = []death{
	{
		name: "gateway SIGKILL", quick: true, sees: far,
		kill: func(p *process) error { p.kill(); return nil },
		heal: (*process).start,
	},
	{
		name: "gateway SIGSTOP", sees: far,
		kill: func(p *process) error { return p.signal(syscall.SIGSTOP) },
		heal: func(p *process) error { return p.signal(syscall.SIGCONT) },
	},
}

func filtered(name string, f testnet.Filter) death {
	return death{
		name: name, sees: both,
		kill: func(p *process) error { return p.host.Filter(f) },
		heal: func(p *process) error { return p.host.Filter(testnet.Filter{}) },
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// The three flows that are open when the peer dies, by turns: silent, a little both ways,
// and as much as goes.
var kinds = []flow{
	{Size: -1},
	{Size: -1, Chunk: 100, Pace: 100 * time.Millisecond},
	{Size: -1, Chunk: 16 << 10, Pace: 20 * time.Millisecond},
}

func TestBothSidesNoticeADeadPeer(t *testing.T) {
	perDeath, rounds := 1, 1
	if full() {
		perDeath, rounds = 5, 6
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: perDeath * len(agentDeaths), backoffMax: time.Second})
		seen := newTimes()
		for range rounds {
			var trials sync.WaitGroup
			for i, agent := range s.agents {
				trials.Go(func() {
					d := agentDeaths[i%len(agentDeaths)]
					if err := s.agentDies(agent, d, seen); err != nil {
						t.Errorf("%s: %v", d.name, err)
					}
				})
			}
			trials.Wait()
		}
		s.requireTruth(t, s.agents...)
		seen.report(t, c.name)
	})
}

// agentDies shows one death. All that is open breaks on both sides, in time and with the
// right reason; then the agent comes back.
func (s *scene) agentDies(agent *process, d death, seen *times) error {
	flows, err := s.openKinds(agent)
	if err != nil {
		return err
	}
	pause(s.tb.Context(), rand.N(3*time.Second)) // any moment between two pings
	atGateway, atAgent := s.gateway.mark(), agent.mark()
	began := time.Now()
	if err := d.kill(agent); err != nil {
		return err
	}
	if err := s.broken(s.gateway, atGateway, agent.name, flows, began, func(took time.Duration) { seen.add(d, "gateway", took) }); err != nil {
		return err
	}
	if d.sees == both {
		err := s.broken(agent, atAgent, agent.name, flows, began, func(took time.Duration) { seen.add(d, "agent", took) })
		if err != nil {
			return err
		}
	}
	mark := agent.mark()
	healed := time.Now()
	if err := d.heal(agent); err != nil {
		return err
	}
	if d.name == "agent SIGSTOP" { // who was stopped learns of it, too
		if err := s.broken(agent, atAgent, agent.name, flows, time.Now(), func(took time.Duration) { seen.add(d, "agent", took) }); err != nil {
			return err
		}
	}
	back, err := agent.await(mark, time.Minute, func(e event) bool { return e.Kind == "connected" })
	if err == nil {
		seen.add(d, "back", back.At.Sub(healed))
	}
	return err
}

func (s *scene) openKinds(agent *process) (flows []flow, err error) {
	for _, f := range kinds {
		f, err := s.open(agent, f)
		if err != nil {
			return nil, err
		}
		flows = append(flows, f)
	}
	return flows, nil
}

// broken waits until one side has seen the end of the connection of an agent and of the
// flows on it, and checks what it says.
func (s *scene) broken(side *process, mark int, agent string, flows []flow, began time.Time, took func(time.Duration)) error {
	down, err := side.await(mark, patience, func(e event) bool { return e.Kind == "down" && e.Agent == agent })
	if err != nil {
		return fmt.Errorf("the connection lives: %w", err)
	}
	if down.Code != transport.Timeout && down.Code != transport.ConnectionLost {
		return fmt.Errorf("%s says of the connection: %s", side.name, down.Error)
	}
	took(down.At.Sub(began))
	for _, f := range flows {
		e, err := s.ending(side, f, 10*time.Second)
		if err != nil {
			return fmt.Errorf("a stream outlives its connection: %w", err)
		}
		// The user of a stream at the other end, who has learnt it first, may reset it.
		if e.Clean || e.Corrupt != "" || e.Code != down.Code && e.Code != transport.Canceled {
			return fmt.Errorf("%s: the connection ended with %q, a stream with %+v", side.name, down.Error, e)
		}
	}
	return nil
}

func TestAgentsNoticeADeadGateway(t *testing.T) {
	agents, rounds := 1, 1
	if full() {
		agents, rounds = 16, 2
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		seen := newTimes()
		var scenes sync.WaitGroup
		for _, d := range gatewayDeaths {
			s := newScene(t, c, sceneConfig{agents: agents, backoffMax: time.Second})
			scenes.Go(func() {
				for range rounds {
					if err := s.gatewayDies(d, seen); err != nil {
						t.Errorf("%s: %v", d.name, err)
					}
				}
			})
		}
		scenes.Wait()
		seen.report(t, c.name)
	})
}

func (s *scene) gatewayDies(d death, seen *times) error {
	flows := make([][]flow, len(s.agents))
	marks := make([]int, len(s.agents))
	for i, agent := range s.agents {
		var err error
		if flows[i], err = s.openKinds(agent); err != nil {
			return err
		}
		marks[i] = agent.mark()
	}
	pause(s.tb.Context(), rand.N(3*time.Second))
	began := time.Now()
	if err := d.kill(s.gateway); err != nil {
		return err
	}
	for i, agent := range s.agents {
		err := s.broken(agent, marks[i], agent.name, flows[i], began, func(took time.Duration) { seen.add(d, "agent", took) })
		if err != nil {
			return err
		}
		marks[i] = agent.mark()
	}
	healed := time.Now()
	if err := d.heal(s.gateway); err != nil {
		return err
	}
	for i, agent := range s.agents {
		back, err := agent.await(marks[i], time.Minute, func(e event) bool { return e.Kind == "connected" })
		if err != nil {
			return err
		}
		seen.add(d, "back", back.At.Sub(healed))
	}
	return nil
}

// times collects how long things took.
type times struct {
	mu   sync.Mutex
	took map[string][]time.Duration
}

func newTimes() *times { return &times{took: make(map[string][]time.Duration)} }

func (x *times) add(d death, who string, took time.Duration) {
	x.mu.Lock()
	defer x.mu.Unlock()
	name := d.name + ", " + who
	x.took[name] = append(x.took[name], took)
}

// report prints a table, and in the full run checks the percentile that was promised.
func (x *times) report(t *testing.T, carrier string) {
	names := make([]string, 0, len(x.took))
	for name := range x.took {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		took := x.took[name]
		slices.Sort(took)
		p := func(q float64) time.Duration { return took[int(q*float64(len(took)-1))].Round(time.Millisecond) }
		t.Logf("%-9s %-26s n=%-3d p50 %6.2fs  p90 %6.2fs  max %6.2fs", carrier, name, len(took), p(0.5).Seconds(), p(0.9).Seconds(), p(1).Seconds())
	}
	require.NotEmpty(t, names)
	for _, name := range names {
		took := x.took[name]
		if full() && !strings.HasSuffix(name, ", back") {
			assert.LessOrEqual(t, took[int(0.99*float64(len(took)-1))], promised+slack, name)
		}
	}
}

// With the default backoff an agent is back soon after a long outage.
func TestAgentsComeBackAfterALongOutage(t *testing.T) {
	agents, outage := 1, 12*time.Second
	if full() {
		agents, outage = 16, 20*time.Second
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: agents})
		marks := make([]int, agents)
		for i, agent := range s.agents {
			_, err := s.open(agent, kinds[1])
			require.NoError(t, err)
			marks[i] = agent.mark()
		}
		require.NoError(t, s.gateway.host.Filter(testnet.Filter{DropTo: true, DropFrom: true}))
		pause(t.Context(), outage)
		require.NoError(t, s.gateway.host.Filter(testnet.Filter{}))
		healed := time.Now()
		seen := newTimes()
		for i, agent := range s.agents {
			back, err := agent.await(marks[i], 2*time.Minute, func(e event) bool { return e.Kind == "connected" })
			require.NoError(t, err)
			seen.add(death{name: fmt.Sprintf("outage of %s", outage)}, "back", back.At.Sub(healed))
		}
		seen.report(t, c.name)
	})
}
