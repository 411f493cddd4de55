package pki_test

import (
	"context"
	"math"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// Who is refused cannot tell from the time it took whether a token is unknown,
// expired, used, or for another name. There are 100 000 samples when .ci/run crash
// runs this.
//
// Each sample is of a kind chosen at random, so whatever else the machine does
// meets all kinds alike, and Welch's t of two kinds is above 4.5 by chance once in
// 150 000 times.
func TestRefusalsTakeTheSameTime(t *testing.T) {
	samples := 2_000
	if exhaustive() {
		samples = 100_000
	}
	a, _ := newAuthority(t)
	a.Logger = nil
	csr := csrOf(t, newKey(t))
	kinds := refusalKinds(t, a)
	order := make([]string, samples)
	bodies := make([][]byte, samples)
	names := []string{"unknown", "expired", "used", "wrong name"}
	for i := range order {
		order[i] = names[rand.IntN(len(names))]
		r := kinds[order[i]]()
		r.CSR = csr
		bodies[i] = requestBody(t, r)
	}
	measure := func(r pki.Registrar, n int) map[string][]float64 {
		unlimited := pki.Rate{PerSecond: 1e9, Burst: 1e9}
		h := pki.Handler(r, pki.HandlerConfig{PerSource: unlimited, Global: unlimited})
		took := make([]float64, n)
		next := make(chan int)
		var clients sync.WaitGroup
		for range 64 {
			clients.Go(func() {
				for i := range next {
					start := time.Now()
					w := post(h, "/outgate/v1/register", bodies[i])
					took[i] = float64(time.Since(start))
					if w.Code != http.StatusUnauthorized {
						t.Errorf("%s: status %d", order[i], w.Code)
					}
				}
			})
		}
		for i := range n {
			next <- i
		}
		close(next)
		clients.Wait()
		byKind := make(map[string][]float64)
		for i, d := range took {
			byKind[order[i]] = append(byKind[order[i]], d)
		}
		return byKind
	}

	worst, pair := worstT(measure(a, samples))
	t.Logf("%d samples; the largest |t| is %.2f, between %s", samples, worst, pair)
	require.Less(t, worst, 4.5, "%s", pair)

	known := make(map[string]bool)
	grants, err := a.Grants(t.Context(), "")
	require.NoError(t, err)
	for _, g := range grants {
		known[g.ID] = true
	}
	leaking, pair := worstT(measure(leaky{a, known}, 1000))
	t.Logf("with a leak of 5 ms the largest |t| is %.2f, between %s", leaking, pair)
	require.Greater(t, leaking, 4.5, "the test sees what it is to find")
}

// refusalKinds make registrations that are refused, each with a token of its own.
func refusalKinds(t *testing.T, a *pki.Authority) map[string]func() pki.Registration {
	first := csrOf(t, newKey(t))
	stranger, _ := newAuthority(t)
	return map[string]func() pki.Registration{
		"unknown": func() pki.Registration {
			return pki.Registration{Token: grant(t, stranger, pki.Grant{}), Agent: "edge"}
		},
		"expired": func() pki.Registration {
			return pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge", TTL: time.Nanosecond}), Agent: "edge"}
		},
		"used": func() pki.Registration {
			token := grant(t, a, pki.Grant{Agent: "edge"})
			_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: first})
			require.NoError(t, err)
			return pki.Registration{Token: token, Agent: "edge"}
		},
		"wrong name": func() pki.Registration {
			return pki.Registration{Token: grant(t, a, pki.Grant{Agent: "core"}), Agent: "edge"}
		},
	}
}

// leaky answers 5 ms later than it should when the token was issued here.
type leaky struct {
	pki.Registrar
	known map[string]bool
}

func (l leaky) Register(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
	c, err := l.Registrar.Register(ctx, r)
	if l.known[r.Token.ID()] {
		time.Sleep(55 * time.Millisecond)
	}
	return c, err
}

// worstT is the largest |t| of any two kinds, of all their samples and of the
// fastest of them: a leak shows best where there is least noise.
func worstT(byKind map[string][]float64) (worst float64, pair string) {
	var all []float64
	for _, samples := range byKind {
		all = append(all, samples...)
	}
	slices.Sort(all)
	for _, percentile := range []float64{1, 0.99, 0.95, 0.9, 0.75, 0.5} {
		limit := all[int(percentile*float64(len(all)-1))]
		for a, samplesOfA := range byKind {
			for b, samplesOfB := range byKind {
				if a >= b {
					continue
				}
				if stat := math.Abs(welch(crop(samplesOfA, limit), crop(samplesOfB, limit))); stat > worst {
					worst, pair = stat, a+" and "+b
				}
			}
		}
	}
	return worst, pair
}

func crop(samples []float64, limit float64) []float64 {
	return slices.DeleteFunc(slices.Clone(samples), func(d float64) bool { return d > limit })
}

// welch is Welch's t of two samples.
func welch(a, b []float64) float64 {
	meanA, varianceA := moments(a)
	meanB, varianceB := moments(b)
	return (meanA - meanB) / math.Sqrt(varianceA/float64(len(a))+varianceB/float64(len(b)))
}

func moments(samples []float64) (mean, variance float64) {
	for _, x := range samples {
		mean += x
	}
	mean /= float64(len(samples))
	for _, x := range samples {
		variance += (x - mean) * (x - mean)
	}
	return mean, variance / float64(len(samples)-1)
}
