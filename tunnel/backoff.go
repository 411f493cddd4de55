package tunnel

import (
	"math/rand/v2"
	"time"
)

// defaultStableAfter is when a connection has proven itself.
const defaultStableAfter = time.Minute

// backoff paces reconnects: full jitter below a bound that doubles from low to
// high, and starts again after a connection that lived for stable.
type backoff struct {
	low, high, stable time.Duration
	bound             time.Duration
}

// next is how long to wait after a connection that lived for lived.
func (b *backoff) next(lived time.Duration) time.Duration {
	switch {
	case b.bound == 0 || lived >= b.stable:
		b.bound = b.low
	default:
		b.bound = min(2*b.bound, b.high)
	}
	return jitter(b.bound)
}

// jitter is a random moment within d.
func jitter(d time.Duration) time.Duration { return rand.N(d) + 1 }
