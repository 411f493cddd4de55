package mux

import "time"

// Config holds the limits of a [Mux]. The zero value is ready to use; a field
// that is zero or negative means its default. New copies it.
type Config struct {
	// MaxStreams is how many streams the peer may have open toward this side at
	// a time, accepted or not: a slot comes back when this side has closed or
	// reset the stream, and not before. The peer's OpenStream waits for one; a
	// peer that opens more loses the connection. Default 1024.
	MaxStreams int

	// MaxWindow is how many bytes one stream may buffer while its reader keeps
	// up. A stream has 16 KiB at least, starts with 256 KiB where the budgets
	// allow, and doubles when the peer uses all of it. Default and most 16 MiB.
	MaxWindow int

	// WindowBudget is how many bytes the windows of the connection may have
	// beyond 16 KiB each, all together. Default 32 MiB.
	WindowBudget int

	// Budget limits the same for all connections that share it. Nil is no
	// such limit.
	Budget *Budget

	// WriteTimeout is how long the network may take to accept one batch of up
	// to 128 KiB. Then the connection ends with the code Timeout. Default 10 s.
	WriteTimeout time.Duration
}

const (
	leastWindow   = 16 << 10  // what a stream begins with on the wire
	startWindow   = 256 << 10 // what it is given at once, if there is enough
	largestWindow = 16 << 20

	// A CREDIT that raises the limit by less is not worth its frame.
	leastRaise = 4 << 10

	closeTimeout = 1500 * time.Millisecond // for the last data and the goodbye
)

func (c Config) withDefaults() Config {
	c.MaxStreams = min(or(c.MaxStreams, 1024), maxID/4)
	c.MaxWindow = min(max(or(c.MaxWindow, largestWindow), leastWindow), largestWindow)
	c.WindowBudget = or(c.WindowBudget, 32<<20)
	c.WriteTimeout = or(c.WriteTimeout, 10*time.Second)
	return c
}

// or returns v, or what stands for a v that is not positive.
func or[T int | time.Duration](v, otherwise T) T {
	if v <= 0 {
		return otherwise
	}
	return v
}
