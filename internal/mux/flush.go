package mux

import "time"

// Corker is a connection below an encrypting one that can keep what is written
// to it, so that everything of a batch leaves at once and without a wait.
type Corker interface {
	// Cork makes Write keep what it gets, up to the next Uncork.
	Cork()

	// Uncork writes what was kept. If it may not wait it writes what the network
	// takes at once, and reports whether that was all; the rest is for an Uncork
	// that may wait.
	Uncork(wait bool) (sent bool, err error)
}

// flush writes what was appended, unless somebody writes: then he will do it.
func (w *sender) flush() {
	w.mu.Lock()
	if w.busy || w.dead || !w.pending() {
		w.mu.Unlock()
		return
	}
	w.busy = true
	if w.corker == nil {
		w.mu.Unlock()
		go w.run()
		return
	}
	b := w.take()
	if b == nil {
		w.rest()
		w.mu.Unlock()
		return
	}
	w.mu.Unlock()
	if !w.write(b) {
		return
	}
	sent, err := w.corker.Uncork(false)
	if err != nil {
		w.fail(err)
		return
	}
	// The caller has done its share: what is left, or came meanwhile, is for
	// another goroutine.
	w.mu.Lock()
	defer w.mu.Unlock()
	if !sent || w.ending || w.pending() {
		go w.run()
		return
	}
	w.busy = false
}

// run writes until there is nothing left to write. Its caller has set busy.
func (w *sender) run() {
	for {
		if w.corker != nil {
			w.guard()
			_, err := w.corker.Uncork(true)
			w.watchdog.Stop()
			if err != nil {
				w.fail(err)
				return
			}
		}
		w.mu.Lock()
		b := w.take()
		if b == nil {
			w.rest()
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		if !w.write(b) {
			return
		}
	}
}

// write gives a batch to the connection, and reports whether it took it.
func (w *sender) write(b *batch) bool {
	if w.corker != nil {
		w.corker.Cork()
	} else {
		w.guard()
		defer w.watchdog.Stop()
	}
	_, err := w.conn.Write(b.frames())
	b.recycle()
	if err != nil {
		w.fail(err)
	}
	return err == nil
}

// guard ends the connection unless the watchdog is stopped in time. Only who has
// set busy calls it.
func (w *sender) guard() {
	if w.watchdog == nil {
		w.watchdog = time.AfterFunc(w.m.cfg.WriteTimeout, w.m.stuck)
	} else {
		w.watchdog.Reset(w.m.cfg.WriteTimeout)
	}
}

// rest ends being busy, when there is nothing to write. w.mu is held.
func (w *sender) rest() {
	w.busy = false
	if w.ending {
		w.finish()
	}
}

// fail ends a sender whose connection takes no more.
func (w *sender) fail(err error) {
	w.m.writeFailed(err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.busy = false
	w.finish()
}

// finish is the end of the sender. What was not written is thrown away. w.mu is
// held.
func (w *sender) finish() {
	if w.dead {
		return
	}
	w.dead, w.ending = true, true
	w.urgent.recycle()
	w.queue.recycle()
	w.urgent, w.queue, w.credits, w.small, w.large, w.goodbye = nil, nil, nil, nil, nil, nil
	close(w.done)
}

// end writes what was appended, then goodbye, and nothing after it. It returns
// when that is done or has failed.
func (w *sender) end(goodbye []byte) {
	w.mu.Lock()
	start := !w.busy && !w.dead
	w.busy = w.busy || start
	w.ending, w.goodbye = true, goodbye
	w.small, w.large = nil, nil // their Writes have failed with the connection
	w.mu.Unlock()
	if start {
		go w.run()
	}
	<-w.done
}
