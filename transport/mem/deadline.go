package mem

import (
	"os"
	"sync"
	"time"
)

// errTimeout keeps the net.Error inside a net.OpError, which asks for it by a
// type assertion.
var errTimeout = os.ErrDeadlineExceeded

// deadline is a time limit on the callers that wait on a condition variable,
// whose lock guards it.
type deadline struct {
	expired bool
	timer   *time.Timer
}

// set moves the deadline to t; the zero time clears it.
func (d *deadline) set(t time.Time, cond *sync.Cond) {
	d.stop()
	d.expired = false
	if t.IsZero() {
		return
	}
	left := time.Until(t)
	if left <= 0 {
		d.expired = true
		cond.Broadcast()
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(left, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		if d.timer == timer { // else it was moved just as it fired
			d.expired = true
			cond.Broadcast()
		}
	})
	d.timer = timer
}

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}
