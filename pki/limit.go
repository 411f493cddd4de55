package pki

import (
	"net/netip"
	"sync"
	"time"
)

// Rate is a limit on requests: a token bucket that holds Burst and gains
// PerSecond.
type Rate struct {
	PerSecond float64
	Burst     int
}

// maxSources bounds the memory of the limiter. Sources beyond it share a bucket.
const maxSources = 4096

// limiter is a bucket for each source in front of one for all: a source over
// its own limit uses up nothing of what the others have.
type limiter struct {
	perSource Rate

	mu       sync.Mutex
	global   bucket
	sources  map[netip.Prefix]*bucket
	overflow bucket
}

func newLimiter(perSource, global Rate) *limiter {
	if perSource == (Rate{}) {
		perSource = Rate{PerSecond: 1, Burst: 10}
	}
	if global == (Rate{}) {
		global = Rate{PerSecond: 50, Burst: 200}
	}
	return &limiter{
		perSource: perSource,
		global:    bucket{rate: global},
		sources:   make(map[netip.Prefix]*bucket),
		overflow:  bucket{rate: perSource},
	}
}

// take returns 0 when a request from addr may go on, or how long it should wait.
func (l *limiter) take(addr string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	source := l.source(addr, now)
	if wait := source.wait(now); wait > 0 {
		return wait
	}
	if wait := l.global.wait(now); wait > 0 {
		return wait
	}
	source.level--
	l.global.level--
	return 0
}

func (l *limiter) source(addr string, now time.Time) *bucket {
	key := sourceOf(addr)
	if b, ok := l.sources[key]; ok {
		return b
	}
	if len(l.sources) >= maxSources {
		for k, b := range l.sources {
			if b.wait(now); b.level >= float64(b.rate.Burst) { // full: as good as new
				delete(l.sources, k)
			}
		}
		if len(l.sources) >= maxSources {
			return &l.overflow
		}
	}
	b := &bucket{rate: l.perSource}
	l.sources[key] = b
	return b
}

// sourceOf is the address block that one client can be thought to own.
func sourceOf(remoteAddr string) netip.Prefix {
	addr, ok := addrOf(remoteAddr)
	if !ok {
		return netip.Prefix{}
	}
	bits := 32
	if addr.Is6() {
		bits = 64
	}
	prefix, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// addrOf is the IP address in one that may have a port.
func addrOf(source string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(source)
	if ap, portErr := netip.ParseAddrPort(source); portErr == nil {
		addr, err = ap.Addr(), nil
	}
	return addr.Unmap().WithZone(""), err == nil
}

type bucket struct {
	rate  Rate
	level float64
	last  time.Time // zero: never used, so full
}

// wait fills the bucket up to now and returns how long it takes until it holds
// one.
func (b *bucket) wait(now time.Time) time.Duration {
	switch elapsed := now.Sub(b.last); {
	case b.last.IsZero():
		b.level = float64(b.rate.Burst)
		b.last = now
	case elapsed > 0: // requests that come together are counted in any order
		b.level = min(float64(b.rate.Burst), b.level+b.rate.PerSecond*elapsed.Seconds())
		b.last = now
	}
	if b.level >= 1 {
		return 0
	}
	if b.rate.PerSecond <= 0 {
		return time.Hour
	}
	return time.Duration((1 - b.level) / b.rate.PerSecond * float64(time.Second))
}
