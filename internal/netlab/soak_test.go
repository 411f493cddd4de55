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
		}
		s.gateway.tell(command{Load: &load})
		script.run(length)
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

func filters(of func(rng *rand.Rand) testnet.Filter) func(*soak, *process, *rand.Rand) (string, func() error, error) {
	return func(_ *soak, p *process, rng *rand.Rand) (string, func() error, error) {
		f := of(rng)
		return fmt.Sprintf("%+v", f), func() error { return p.host.Filter(testnet.Filter{}) }, p.host.Filter(f)
	}
}

var soakFaults = []fault{
	{"SIGKILL", [2]int{0, 2}, killed},
	{"SIGSTOP", [2]int{5, 15}, signalled},
	{"cable", [2]int{1, 20}, func(_ *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		return "", func() error { return p.host.Unplug(false) }, p.host.Unplug(true)
	}},
	{"loss", [2]int{5, 15}, filters(func(rng *rand.Rand) testnet.Filter {
		return testnet.Filter{Loss: 0.02 + 0.18*rng.Float64()}
	})},
	{"one way", [2]int{1, 15}, filters(func(rng *rand.Rand) testnet.Filter {
		to := rng.IntN(2) == 0
		return testnet.Filter{DropTo: to, DropFrom: !to}
	})},
	{"reject", [2]int{1, 15}, filters(func(*rand.Rand) testnet.Filter { return testnet.Filter{Reject: true} })},
	{"half-open", [2]int{1, 15}, func(s *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		err := p.host.Filter(testnet.Filter{NoEnds: true})
		p.kill()
		return "", func() error { return firstOf(p.host.Filter(testnet.Filter{}), s.restart(p)) }, err
	}},
	{"rate", [2]int{5, 15}, func(_ *soak, p *process, rng *rand.Rand) (string, func() error, error) {
		bits := int64(1+rng.IntN(10)) * 1_000_000
		return fmt.Sprintf("%d bit/s", bits), func() error { return p.host.Rate(0) }, p.host.Rate(bits)
	}},
	{"move", [2]int{0, 0}, func(s *soak, p *process, _ *rand.Rand) (string, func() error, error) {
		if p == s.scene.gateway { // which has to be where it was
			return "not", func() error { return nil }, nil
		}
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
func (s *soak) run(length time.Duration) {
	s.busy = make(map[*process]bool)
	everyone := append([]*process{s.scene.gateway}, s.scene.agents...)
	for time.Since(s.began) < length {
		f := soakFaults[s.rng.IntN(len(soakFaults))]
		first := s.rng.IntN(len(everyone))
		lasts := time.Duration(f.lasts[0])*time.Second + time.Duration(s.rng.Int64N(int64(time.Duration(f.lasts[1]-f.lasts[0])*time.Second+1)))
		wait := 3*time.Second + time.Duration(s.rng.Int64N(int64(7*time.Second)))
		for i := range everyone { // the next one that has none yet
			if s.inject(f, everyone[(first+i)%len(everyone)], min(lasts, length)) {
				break
			}
		}
		pause(s.scene.tb.Context(), wait)
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

// settle waits until the traffic has ended and shows that every agent can be used again.
func (s *soak) settle(t *testing.T) {
	t.Helper()
	require.NoError(t, s.failed)
	mark := s.scene.gateway.mark()
	s.scene.gateway.tell(command{Pause: true})
	_, err := s.scene.gateway.await(mark, 2*stuckAfter, func(e event) bool { return e.Kind == "idle" })
	require.NoError(t, err, "the traffic does not come to its end")
	for _, a := range s.scene.agents {
		require.NoError(t, s.scene.transfer(a, flow{Size: 100_000, Chunk: 10_000}, time.Minute))
	}
}

func (s *soak) verdict(t *testing.T) {
	t.Helper()
	whole, broken := map[string]int{}, 0
	var bytes int64
	for _, p := range append([]*process{s.scene.gateway}, s.scene.agents...) {
		for _, e := range p.since(0) {
			require.NotEqual(t, "stuck", e.Kind, "%s: %+v", p.name, e)
			if e.Kind != "flow" {
				continue
			}
			require.Empty(t, e.Ending.Corrupt, "%s: %+v", p.name, e)
			bytes += e.Ending.Received
			switch {
			case p != s.scene.gateway || e.Via == "": // the same from the other side; settle
			case e.Ending.Clean:
				whole[e.Via]++
			default:
				broken++
			}
		}
	}
	t.Logf("%d faults; complete: %v; broken, and said so: %d; %d MiB checked; 0 corrupt, 0 false ends, 0 stuck", s.faults, whole, broken, bytes>>20)
	for _, via := range []string{"service", "tcp", "http"} {
		require.Positive(t, whole[via], "nothing went through %s", via)
	}
}
