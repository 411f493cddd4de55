package mux

import "github.com/outgate/outgate/transport"

// Unaccepted returns the streams that wait for AcceptStream, which returns none of
// them after the end.
func (m *Mux) Unaccepted() (all []transport.Stream) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.backlog {
		all = append(all, s)
	}
	return all
}

// Streams returns how many streams the books of the connection hold.
func (m *Mux) Streams() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.streams)
}

// BudgetLeft is what is left of Config.WindowBudget.
func (m *Mux) BudgetLeft() int64 { return m.budget.left.Load() }

// Left is what is left of the Budget.
func (b *Budget) Left() int64 { return b.left.Load() }
