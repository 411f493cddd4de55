package mux

import (
	"sync"
	"time"
)

// waiter is where one Read or one Write waits for something to change, at most
// until its deadline. The lock of cond guards it.
type waiter struct {
	cond     sync.Cond
	deadline time.Time   // zero is none
	timer    *time.Timer // runs while somebody waits; nil before the first deadline
}

// wait waits until somebody calls cond.Broadcast or the deadline is over; the
// caller then looks which. The deadline must not be over yet.
func (w *waiter) wait() {
	if !w.deadline.IsZero() {
		d := time.Until(w.deadline)
		if w.timer == nil {
			w.timer = time.AfterFunc(d, w.wake)
		} else {
			w.timer.Reset(d)
		}
		defer w.timer.Stop()
	}
	w.cond.Wait()
}

func (w *waiter) wake() {
	w.cond.L.Lock() // so that it does not come between the look and the wait
	defer w.cond.L.Unlock()
	w.cond.Broadcast()
}

// set moves the deadline, also under a wait.
func (w *waiter) set(t time.Time) {
	w.cond.L.Lock()
	defer w.cond.L.Unlock()
	w.deadline = t
	w.cond.Broadcast()
}

// expired reports whether the deadline is over.
func (w *waiter) expired() bool {
	return !w.deadline.IsZero() && !time.Now().Before(w.deadline)
}
