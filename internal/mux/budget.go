package mux

import "sync/atomic"

// Budget is a number of bytes that connections share: see Config.Budget. It may
// be used by any number of them concurrently.
type Budget struct{ left atomic.Int64 }

// NewBudget returns a Budget of n bytes.
func NewBudget(n int64) *Budget {
	b := new(Budget)
	b.left.Store(n)
	return b
}

// Take takes n bytes, if as many are left. A nil Budget has enough.
func (b *Budget) Take(n int) bool {
	if b == nil || b.left.Add(-int64(n)) >= 0 {
		return true
	}
	b.left.Add(int64(n))
	return false
}

// Put gives n bytes back.
func (b *Budget) Put(n int) {
	if b != nil {
		b.left.Add(int64(n))
	}
}

// reserve takes n bytes from both budgets of the connection, or from none.
func (m *Mux) reserve(n int) bool {
	if !m.budget.Take(n) {
		return false
	}
	if !m.cfg.Budget.Take(n) {
		m.budget.Put(n)
		return false
	}
	return true
}

func (m *Mux) unreserve(n int) {
	if n != 0 {
		m.budget.Put(n)
		m.cfg.Budget.Put(n)
	}
}

// scarce reports whether less than a quarter of total is left.
func (b *Budget) scarce(total int) bool { return b.left.Load() < int64(total)/4 }
