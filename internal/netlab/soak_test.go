//go:build linux

package netlab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

// The soak breaks something every few seconds while all kinds of traffic run. Whatever is
// reported as complete has to be, nothing may be corrupt, and nothing may stand still for
// a minute. The log holds the seed and the script of faults.
func TestNothingIsLostOrStuckInASoak(t *testing.T) {
	length := 5 * time.Second
	if full() {
		length = time.Minute
	}
	if text := os.Getenv("OUTGATE_SOAK"); text != "" {
		var err error
		length, err = time.ParseDuration(text)
		require.NoError(t, err, "OUTGATE_SOAK is a duration such as 10m")
	}
	seed := rand.Uint64()
	if text := os.Getenv("OUTGATE_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, "OUTGATE_SEED is a number")
	}
	onEachCarrier(t, func(t *testing.T, c carrier) {
		t.Logf("OUTGATE_SEED=%d OUTGATE_SOAK=%s", seed, length)
		s := newScene(t, c, sceneConfig{agents: 3, backoffMax: 2 * time.Second})
		load := loadCommand{Workers: 6, Seed: seed}
		for _, a := range s.agents {
			load.Agents = append(load.Agents, a.name)
		}
		script := &soak{
			scene: s,
			load:  load,
			rng:   rand.New(rand.NewPCG(seed, 0)),
			began: time.Now(),
			log:   t.Logf,

			busy:    make(map[*process]bool),
			counted: make(map[*process]int),
			whole:   make(map[string]int),
		}
		s.gateway.tell(command{Load: &load})
		script.run(t, length)
		script.settle(t)
		script.verdict(t)
	})
}

// soak is one run of the script.
type soak struct {
	scene *scene
	load  loadCommand
	rng   *rand.Rand
	began time.Time
	log   func(format string, args ...any)

	healing sync.WaitGroup
	mu      sync.Mutex
	busy    map[*process]bool // has a fault that will heal
	failed  error
	faults  int

	counted map[*process]int // events of each process
	whole   map[string]int   // conversations by what they went through
	broken  int
	bytes   int64
}

// fault breaks a process or its network and returns how to mend it, after a while.
type fault struct {
	name  string
	lasts [2]int // seconds, from and to
	apply func(s *soak, p *process, rng *rand.Rand) (what string, heal func() error, err error)
}

func signalled(s *soak, p *process, _ *rand.Rand) (string, func() error, error) {
	return "", func() error { return p.signal(syscall.SIGCONT) }, p.signal(syscall.SIGSTOP)
}

func killed(s *soak, p *process, _ *rand.Rand) (string, func() error, error) {
	p.kill()
	return "", func() error { return s.restart(p) }, nil
}

func filters(of func(rng *rand.Rand) (string, testnet.Filter)) func(*soak, *process, *rand.Rand) (string, func() error, error) {
	return func(_ *soak, p *process, rng *rand.Rand) (string, func() error, error) {
		what, f := of(rng)
		return what, func() error { return p.host.Filter(testnet.Filter{}) }, p.host.Filter(f)
	}
}

var soakFaults = []fault{
	{"SIGKILL", [2]int{0, 2}, killed},
	{"SIGSTOP", [2]int{5, 15}, signalled},
	{"cable", [2]int{1, 20}, func(_ *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		return "", func() error { return p.host.Unplug(false) }, p.host.Unplug(true)
	}},
	{"loss", [2]int{5, 15}, filters(func(rng *rand.Rand) (string, testnet.Filter) {
		share := 0.02 + 0.18*rng.Float64()
		return fmt.Sprintf("%.1f %%", 100*share), testnet.Filter{Loss: share}
	})},
	{"one way", [2]int{1, 15}, filters(func(rng *rand.Rand) (string, testnet.Filter) {
		if rng.IntN(2) == 0 {
			return "lost to it", testnet.Filter{DropTo: true}
		}
		return "lost from it", testnet.Filter{DropFrom: true}
	})},
	{"reject", [2]int{1, 15}, filters(func(*rand.Rand) (string, testnet.Filter) { return "", testnet.Filter{Reject: true} })},
	{"half-open", [2]int{1, 15}, func(s *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		err := p.host.Filter(testnet.Filter{NoEnds: true})
		p.kill()
		return "", func() error { return firstOf(p.host.Filter(testnet.Filter{}), s.restart(p)) }, err
	}},
	{"rate", [2]int{5, 15}, func(_ *soak, p *process, rng *rand.Rand) (string, func() error, error) {
		bits := int64(1+rng.IntN(10)) * 1_000_000
		return fmt.Sprintf("%d bit/s", bits), func() error { return p.host.Rate(0) }, p.host.Rate(bits)
	}},
	{"move", [2]int{0, 0}, func(_ *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		return "", func() error { return nil }, p.host.Move()
	}},
}

// restart starts a process again; a gateway goes on with its load.
func (s *soak) restart(p *process) error {
	err := p.start()
	if err == nil && p == s.scene.gateway {
		s.load.Seed++
		p.tell(command{Load: &s.load})
	}
	return err
}

// run breaks something every 3 to 10 s. One process has one fault at a time.
func (s *soak) run(t *testing.T, length time.Duration) {
	t.Helper()
	everyone := s.everyone()
	for time.Since(s.began) < length {
		f := soakFaults[s.rng.IntN(len(soakFaults))]
		first := s.rng.IntN(len(everyone))
		lasts := time.Duration(f.lasts[0])*time.Second + time.Duration(s.rng.Int64N(int64(time.Duration(f.lasts[1]-f.lasts[0])*time.Second+1)))
		wait := 3*time.Second + time.Duration(s.rng.Int64N(int64(7*time.Second)))
		for i := range everyone { // the next one that has none yet
			p := everyone[(first+i)%len(everyone)]
			if f.name == "move" && p == s.scene.gateway {
				continue // agents look for it where it was
			}
			if s.inject(f, p, min(lasts, length)) {
				break
			}
		}
		pause(t.Context(), wait)
		s.tally(t)
	}
	s.healing.Wait()
}

func (s *soak) inject(f fault, p *process, lasts time.Duration) bool {
	s.mu.Lock()
	taken := s.busy[p]
	s.busy[p] = true
	s.mu.Unlock()
	if taken {
		return false
	}
	at := time.Since(s.began)
	what, heal, err := f.apply(s, p, s.rng)
	s.log("%7.3fs %-8s %s %s for %s", at.Seconds(), p.name, f.name, what, lasts.Round(time.Millisecond))
	s.note(err)
	s.mu.Lock()
	s.faults++
	s.mu.Unlock()
	s.healing.Go(func() {
		pause(s.scene.tb.Context(), lasts)
		s.note(heal())
		s.mu.Lock()
		defer s.mu.Unlock()
		s.busy[p] = false
	})
	return true
}

func (s *soak) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
}

// settle shows that everything goes through every agent again, and ends the traffic.
func (s *soak) settle(t *testing.T) {
	t.Helper()
	require.NoError(t, s.failed)
	mark := s.scene.gateway.mark()
	for _, a := range s.scene.agents {
		for _, via := range vias {
			_, err := s.scene.gateway.await(mark, time.Minute, func(e event) bool {
				return e.Kind == "flow" && e.Agent == a.name && e.Via == via && e.Ending.Clean
			})
			require.NoError(t, err, "nothing goes through %s by %s", a.name, via)
		}
	}
	mark = s.scene.gateway.mark()
	s.scene.gateway.tell(command{Pause: true})
	_, err := s.scene.gateway.await(mark, 2*stuckAfter, func(e event) bool { return e.Kind == "idle" })
	require.NoError(t, err, "the traffic does not come to its end")
}

// tally counts how conversations have ended since it last looked.
func (s *soak) tally(t *testing.T) {
	t.Helper()
	for _, p := range s.everyone() {
		mark := s.counted[p]
		for _, e := range p.since(mark) {
			mark++
			require.NotEqual(t, "stuck", e.Kind, "%s: %+v", p.name, e)
			require.Empty(t, e.Ending.Corrupt, "%s: %+v", p.name, e)
			s.bytes += e.Ending.Received
			switch {
			case p != s.scene.gateway || e.Kind != "flow": // or the same from the other side
			case e.Ending.Clean:
				s.whole[e.Via]++
			default:
				s.broken++
			}
		}
		s.counted[p] = mark
		p.forget(mark)
	}
}

func (s *soak) verdict(t *testing.T) {
	t.Helper()
	s.tally(t)
	t.Logf("%d faults; complete: %v; broken, and said so: %d; %d MiB checked; 0 corrupt, 0 false ends, 0 stuck", s.faults, s.whole, s.broken, s.bytes>>20)
}

func (s *soak) everyone() []*process { return append([]*process{s.scene.gateway}, s.scene.agents...) }
