package mux

import "time"

// Corker is a connection below an encrypting one that keeps what is written to it
// between Cork and Uncork, so that everything of a batch leaves at once.
type Corker interface {
	Cork()
	Uncork() error
}

// flush has what was appended written, unless somebody writes: then he will do it.
// It does not write itself, since the network could make it wait beyond the
// deadline of its caller; and who calls it often appends more before it waits for
// an answer, which then leaves with it.
func (w *sender) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.busy && !w.dead && w.pending() {
		w.busy = true
		go w.running()
	}
}

// run writes until there is nothing left to write. Its caller has set busy.
func (w *sender) run() {
	for {
		w.mu.Lock()
		b := w.take()
		if b == nil {
			w.rest()
			w.mu.Unlock()
			return
		}
		w.mu.Unlock()
		w.guard()
		err := w.write(b)
		w.watchdog.Stop()
		b.recycle()
		if err != nil {
			w.fail(err)
			return
		}
	}
}

// write gives a batch to the connection.
func (w *sender) write(b *batch) error {
	if w.corker == nil {
		_, err := w.conn.Write(b.frames())
		return err
	}
	w.corker.Cork()
	_, err := w.conn.Write(b.frames())
	if uncorked := w.corker.Uncork(); err == nil {
		err = uncorked
	}
	return err
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
		go w.running()
	}
	<-w.done
}
