package pki_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// lapses notes how long before its end each certificate was renewed.
type lapses struct {
	pki.Registrar
	mu     sync.Mutex
	before []time.Duration
}

func (l *lapses) Renew(ctx context.Context, r pki.Renewal) (*pki.Credential, error) {
	l.mu.Lock()
	l.before = append(l.before, time.Until(r.Presented.NotAfter))
	l.mu.Unlock()
	return l.Registrar.Renew(ctx, r)
}

func (l *lapses) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.before)
}

// A thousand agents whose certificates live for ten minutes, half of them with
// clocks that are set while they run: no certificate ends, the gateway is asked
// as rarely as possible, and never by all at once.
func TestAFleetOfAThousandNeverLapses(t *testing.T) {
	const (
		agents   = 1000
		lifetime = 10 * time.Minute
		duration = 30 * time.Minute
		// A certificate is backdated by a minute, and due a third of the whole
		// before its end, give or take a tenth of that.
		before = 11 * time.Minute / 3
	)
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		a.Lifetime = lifetime
		steady, jumping := &lapses{Registrar: a}, &lapses{Registrar: a}
		identities := make([]*pki.Identity, agents)
		for n := range identities {
			// They come up one after the other, and no two timers are due at once.
			time.Sleep(lifetime/agents + time.Duration(rand.IntN(1e6)))
			clock := new(machine)
			identities[n] = enrollBy(t, a, clock)
			if n%2 == 0 {
				run(t, identities[n], steady)
				continue
			}
			run(t, identities[n], remote{jumping, clock})
			jump := time.AfterFunc(rand.N(duration), func() { clock.set(rand.N(4*time.Hour) - 2*time.Hour) })
			t.Cleanup(func() { jump.Stop() })
		}
		warmUp := steady.count() + jumping.count()
		time.Sleep(duration)
		synctest.Wait()
		for n, identity := range identities {
			require.Positive(t, time.Until(identity.Status().NotAfter), "agent %d", n)
			require.NoError(t, identity.Status().Failure)
		}
		earliest, latest := time.Duration(0), lifetime
		for _, left := range steady.before {
			earliest, latest = max(earliest, left), min(latest, left)
		}
		require.Greater(t, float64(earliest-latest), 0.8*0.2*float64(before))
		require.Less(t, float64(earliest-latest), 0.2*float64(before)+float64(2*time.Second))
		for _, left := range jumping.before {
			require.Positive(t, left) // nobody came too late
		}
		attempts := float64(steady.count() + jumping.count() - warmUp)
		ideal := agents * float64(duration) / float64(lifetime-before)
		t.Logf("%.0f renewals in %s, %.3f of the ideal, from %s to %s before the end", attempts, duration, attempts/ideal, earliest, latest)
		require.Less(t, attempts, 1.1*ideal)
	})
}
