package tunnel

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/outgate/outgate/transport"
)

// Rung is one transport of an agent, towards its gateway.
type Rung struct {
	Transport string    // the name of the dialer: of its method String, or its type
	Current   bool      // the agent's connection uses it
	Failed    time.Time // when it failed last; zero if it never did or has worked since
	Err       error     // why
	NextTry   time.Time // when a better transport than the current one is tried next; else zero
}

const (
	// leastClimb and mostClimb are the defaults of Agent.ClimbMin and ClimbMax.
	leastClimb = time.Minute
	mostClimb  = time.Hour
	// maxStrikes is how many connections in a row may break soon after they worked
	// before another transport has its turn.
	maxStrikes = 3
)

// ladder is what an agent has learned about its transports towards one gateway.
type ladder struct {
	climbMin, climbMax time.Duration

	mu       sync.Mutex
	rungs    []Rung        // the preferred one first
	first    int           // where the next attempt begins: what has worked last
	strikes  int           // connections on it that broke early, in a row
	interval time.Duration // bound of the last wait before a climb; 0 before the first
}

func newLadder(dialers []transport.Dialer, climbMin, climbMax time.Duration) *ladder {
	ld := &ladder{climbMin: climbMin, climbMax: max(climbMin, climbMax)}
	for _, d := range dialers {
		ld.rungs = append(ld.rungs, Rung{Transport: dialerName(d)})
	}
	return ld
}

func dialerName(d transport.Dialer) string {
	if s, ok := d.(fmt.Stringer); ok {
		return s.String()
	}
	return fmt.Sprintf("%T", d)
}

// all is the order in which an agent without a connection tries its transports.
func (ld *ladder) all() []int {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	order := []int{ld.first}
	for i := range ld.rungs {
		if i != ld.first {
			order = append(order, i)
		}
	}
	return order
}

// above is the order in which an agent with a connection tries better ones.
func above(rung int) []int {
	order := make([]int, rung)
	for i := range order {
		order[i] = i
	}
	return order
}

// worked notes that the gateway has sent its welcome over a rung.
func (ld *ladder) worked(rung int) {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	if ld.first != rung {
		ld.strikes = 0
	}
	ld.first = rung
	ld.rungs[rung].Failed, ld.rungs[rung].Err = time.Time{}, nil
	ld.forgetPlans()
}

func (ld *ladder) failed(rung int, err error) {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	ld.fail(rung, err)
}

// fail is called with mu held.
func (ld *ladder) fail(rung int, err error) {
	ld.rungs[rung].Failed, ld.rungs[rung].Err = time.Now(), err
}

// ended notes the end of the connection on a rung. A transport that works for the
// handshake and breaks soon after, again and again, does not work.
func (ld *ladder) ended(rung int, lived, stable time.Duration, err error) {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	ld.forgetPlans()
	switch {
	case lived >= stable:
		ld.strikes = 0
		if rung == 0 {
			ld.interval = 0
		}
	case isOfTransport(err):
		ld.strikes++
		if ld.strikes >= maxStrikes && len(ld.rungs) > 1 {
			ld.fail(rung, err)
			ld.first, ld.strikes = (rung+1)%len(ld.rungs), 0
		}
	}
}

// plan returns how long to wait before the next climb from a rung. The bound
// doubles with every climb, also with those that succeed, until the best rung has
// proven to be stable.
func (ld *ladder) plan(rung int) time.Duration {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	ld.interval = min(max(2*ld.interval, ld.climbMin), ld.climbMax)
	wait := ld.interval/2 + jitter(ld.interval/2+1)
	for i := range rung {
		ld.rungs[i].NextTry = time.Now().Add(wait)
	}
	return wait
}

// forgetPlans is called with mu held.
func (ld *ladder) forgetPlans() {
	for i := range ld.rungs {
		ld.rungs[i].NextTry = time.Time{}
	}
}

func (ld *ladder) snapshot() []Rung {
	ld.mu.Lock()
	defer ld.mu.Unlock()
	return slices.Clone(ld.rungs)
}

// isOfTransport reports whether another transport to the same gateway may do better.
// It may not when the gateway itself has answered: it said no to the identity, is busy
// or goes away, or has a fault.
func isOfTransport(err error) bool {
	if permanent(err) {
		return false
	}
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return true // a middlebox that intercepts one of them, perhaps
	}
	var way interface{ OnTheWay() bool }
	if errors.As(err, &way) && way.OnTheWay() {
		return true
	}
	var busy interface{ RetryDelay() time.Duration }
	if errors.As(err, &busy) && busy.RetryDelay() > 0 {
		return false
	}
	return !slices.ContainsFunc([]transport.Code{
		transport.NoError, transport.Denied, transport.Revoked, transport.Overloaded, transport.Draining, transport.Duplicate, transport.Internal,
	}, func(c transport.Code) bool { return errors.Is(err, c) })
}

// ladderError says how each of several transports failed.
type ladderError []error

func (e ladderError) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e ladderError) Unwrap() []error { return e }
