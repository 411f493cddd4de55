package pki

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Requests that come together reach the limiter in any order of their times.
func TestTimeDoesNotRunBackwardsInTheLimiter(t *testing.T) {
	fast := Rate{PerSecond: 1e9, Burst: 1e9}
	l, now := newLimiter(fast, fast), time.Now()
	for range 100 {
		require.Zero(t, l.take("192.0.2.1:1", now))
		require.Zero(t, l.take("192.0.2.1:1", now.Add(-10*time.Second)))
	}
}
