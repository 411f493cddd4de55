package websocket

import nativemux "github.com/outgate/outgate/internal/mux"

// Budget is memory that connections share, for Config.Budget. It may be used by
// any number of Dialers and Listeners, concurrently.
type Budget struct{ left *nativemux.Budget }

// NewBudget returns a Budget of n bytes.
func NewBudget(n int64) *Budget { return &Budget{nativemux.NewBudget(n)} }

// shared is what the multiplexers know of it.
func (b *Budget) shared() *nativemux.Budget {
	if b == nil {
		return nil
	}
	return b.left
}
