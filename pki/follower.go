package pki

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// ErrStale says that a [Follower] has not heard from its store for too long to
// let anybody in. It has a method Temporary that says true.
var ErrStale error = staleError{}

type staleError struct{}

func (staleError) Error() string   { return "pki: revocations not heard of for too long" }
func (staleError) Temporary() bool { return true }

const (
	defaultInterval     = time.Second
	defaultMaxStaleness = time.Minute
)

// Follower keeps up with what is revoked, so that a gateway can end connections
// that were good when they began, and judge new ones for a while without its
// store. Each gateway runs one.
//
// Set the fields before the first call and leave them alone after; all methods
// may be called concurrently.
type Follower struct {
	// Store is asked for what is new. Required.
	Store Store

	// Interval is the time between two questions; 0 means one second. Wake asks
	// at once.
	Interval time.Duration

	// MaxStaleness is how old the last answer of the store may be before Check
	// refuses everybody; 0 means one minute.
	MaxStaleness time.Duration

	// Changed is called by Run when something new is revoked, after Check knows
	// of it. nil does nothing.
	Changed func()

	// Logger hears when the store does not answer, and when it does again. nil
	// is silent.
	Logger *slog.Logger

	once         sync.Once
	interval     time.Duration
	maxStaleness time.Duration
	log          *slog.Logger
	wake         chan struct{}

	mu      sync.RWMutex
	number  uint64               // of the last revocation heard of
	serials map[string]time.Time // when to forget them; zero: never
	keys    map[string]time.Time
	sweepAt int
	heard   time.Time // when the store has last answered
}

func (f *Follower) init() {
	f.once.Do(func() {
		f.wake = make(chan struct{}, 1)
		f.serials = make(map[string]time.Time)
		f.keys = make(map[string]time.Time)
		f.sweepAt = minForget
		f.interval, f.maxStaleness, f.log = f.Interval, f.MaxStaleness, f.Logger
		if f.interval <= 0 {
			f.interval = defaultInterval
		}
		if f.maxStaleness <= 0 {
			f.maxStaleness = defaultMaxStaleness
		}
		if f.log == nil {
			f.log = slog.New(slog.DiscardHandler)
		}
	})
}

// Run asks the store until ctx ends, and returns the cause of that. A store that
// does not answer is asked again.
func (f *Follower) Run(ctx context.Context) error {
	f.init()
	ticker := time.NewTicker(f.interval)
	defer ticker.Stop()
	failing := false
	for {
		news, err := f.ask(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !failing:
			f.log.WarnContext(ctx, "pki: cannot hear of revocations", "err", err, "refuse_after", f.maxStaleness)
		case err == nil && failing:
			f.log.InfoContext(ctx, "pki: revocations are heard of again")
		}
		failing = err != nil
		if news && f.Changed != nil {
			f.Changed()
		}
		select {
		case <-ticker.C:
		case <-f.wake:
		case <-ctx.Done():
		}
	}
}

// Wake makes Run ask now. It does not wait.
func (f *Follower) Wake() {
	f.init()
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// ask brings the follower up to date.
func (f *Follower) ask(ctx context.Context) (news bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	f.mu.RLock()
	after := f.number
	f.mu.RUnlock()
	var records []RevocationRecord
	asked := time.Now()
	err = f.Store.View(ctx, func(tx Tx) (err error) {
		records, err = tx.Revocations(after)
		return err
	})
	if err != nil {
		return false, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.heard = asked
	for _, r := range records {
		f.number = max(f.number, r.Number)
		if r.Serial != "" {
			f.serials[r.Serial] = r.Forget
		} else {
			f.keys[string(r.KeyHash)] = r.Forget
		}
	}
	f.sweep(asked)
	return len(records) > 0, nil
}

// sweep forgets certificates that have long expired.
func (f *Follower) sweep(now time.Time) {
	if len(f.serials) < f.sweepAt {
		return
	}
	for serial, forget := range f.serials {
		if forgotten(forget, now) {
			delete(f.serials, serial)
		}
	}
	f.sweepAt = max(minForget, 2*len(f.serials))
}

// Check refuses a connection whose certificate, or the key of it, is revoked,
// and every connection when the store has not answered for MaxStaleness, or not
// yet. The error matches [ErrRevoked] or [ErrStale]. It does not ask the store,
// and lets a connection without a certificate pass.
//
// It is meant for the Verify field of a tunnel.Gateway.
func (f *Follower) Check(cs tls.ConnectionState) error {
	f.init()
	if len(cs.PeerCertificates) == 0 {
		return nil
	}
	leaf := cs.PeerCertificates[0]
	f.mu.RLock()
	defer f.mu.RUnlock()
	if _, revoked := f.serials[SerialOf(leaf)]; revoked {
		return fmt.Errorf("%w: serial %s", ErrRevoked, SerialOf(leaf))
	}
	if len(f.keys) > 0 {
		hash, err := keyHash(leaf.PublicKey)
		if err != nil {
			return fmt.Errorf("pki: key of the certificate: %w", err)
		}
		if _, revoked := f.keys[string(hash)]; revoked {
			return fmt.Errorf("%w: its key, certificate %s", ErrRevoked, SerialOf(leaf))
		}
	}
	if age := time.Since(f.heard); f.heard.IsZero() || age > f.maxStaleness {
		return fmt.Errorf("%w: last at %s; Follower.MaxStaleness is %s", ErrStale, f.heard.Format(time.RFC3339), f.maxStaleness)
	}
	return nil
}
