package pki

import (
	"context"
	"sync"
	"time"
)

// MemoryStore is a [Store] that ends with the process: for tests, and for
// gateways whose agents enrol anew when the gateway restarts. The zero value is
// ready to use.
type MemoryStore struct {
	mu     sync.RWMutex
	ledger *ledger
}

var _ Store = (*MemoryStore)(nil)

// View runs f beside other views.
func (s *MemoryStore) View(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	l := s.ledger
	if l == nil {
		l = newLedger()
	}
	return f(&ledgerTx{ledger: l, readOnly: true})
}

// Update runs f alone.
func (s *MemoryStore) Update(ctx context.Context, f func(Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ledger == nil {
		s.ledger = newLedger()
	}
	tx := &ledgerTx{ledger: s.ledger}
	if err := f(tx); err != nil {
		return err
	}
	s.ledger.apply(&tx.change)
	s.ledger.sweep(time.Now())
	return nil
}
