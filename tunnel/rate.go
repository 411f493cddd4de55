package tunnel

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// defaultOpensPerSecond is the default of MaxOpensPerSecond.
const defaultOpensPerSecond = 200

// opensPerSecond is the limit that a field of that name asks for.
func opensPerSecond(field int) int {
	if field == 0 {
		return defaultOpensPerSecond
	}
	return field
}

// rate gives turns: so many per second, and one second's worth of them at once after
// a quiet second.
type rate struct {
	perSecond int // none if not positive

	mu   sync.Mutex
	full time.Time // when the last turn would have been, had there been no burst
}

// take gives away the next turn and returns how long it is until then.
func (r *rate) take(now time.Time) time.Duration {
	if r.perSecond <= 0 {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.full.Before(now) {
		r.full = now
	}
	r.full = r.full.Add(time.Second / time.Duration(r.perSecond))
	return max(0, r.full.Sub(now)-time.Second)
}

const (
	// penalty is how much longer a stream that was refused for lack of room keeps its
	// place among those of the connection. It bounds how fast a peer that does not care
	// for refusals can have more of them.
	penalty = time.Second
	// quiet is how long a flood is not mentioned in the log again.
	quiet = 10 * time.Second
)

// flood keeps what a peer does too often from filling the log.
type flood struct {
	mu     sync.Mutex
	since  time.Time // when it was last in the log
	silent int       // how often it was not, since then
}

// warn logs the first of a flood, and how many there were since.
func (f *flood) warn(log *slog.Logger, message string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() && time.Since(f.since) < quiet {
		f.silent++
		return
	}
	if f.silent > 0 {
		args = append(args, "not_logged", f.silent)
	}
	f.since, f.silent = time.Now(), 0
	log.Warn(message, args...)
}

// overloaded refuses a stream at once, and lets go of it late.
func (l *link) overloaded(in *Incoming, log *slog.Logger) {
	l.cfg.counters.rejected.Add(1)
	l.floods.warn(log, "refused a stream: too many wait for their turn or an answer",
		"limit", l.cfg.maxPending, "field", "MaxPendingOpens", "per_second", l.cfg.opensPerSec, "rate_field", "MaxOpensPerSecond")
	if in.decide(rejected) != nil {
		return
	}
	reason := fmt.Sprintf("%d streams wait for their turn or an answer already; see MaxPendingOpens and MaxOpensPerSecond", l.cfg.maxPending)
	if in.reply(wire.Reply{Code: transport.Overloaded, Reason: reason}) == nil {
		_ = in.stream.CloseWrite() // a peer that has gone by now has its answer
	}
	l.sleep(penalty)
	_ = in.stream.Close()
}

// sleep reports whether the connection is still there after d.
func (l *link) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-l.mux.Context().Done():
		return false
	}
}
