package transporttest

import (
	"testing"

	"github.com/outgate/outgate/transport"
)

// Harness is what the suite knows about an implementation. Only Connect is
// required.
type Harness struct {
	// Connect makes a new connection and returns its two sides. It registers
	// what has to be torn down with tb.Cleanup and ends the test with tb.Fatal
	// when it cannot connect. The suite calls it from one goroutine at a time,
	// uses up to two connections at once, and closes both Muxes of each itself,
	// so a Mux that is closed twice must be fine.
	Connect func(tb testing.TB) Pair

	// MaxStreams is how many streams one side of a connection from Connect may
	// have open at a time. Zero means that the limit is not known; then the
	// promise MaxStreams is not tested, and a test opens at most 1 000 streams.
	MaxStreams int

	// MaxBuffered is the most bytes that one direction of a stream takes while
	// the peer does not read, the buffers of the carrier included.
	// Zero means 32 MiB.
	MaxBuffered int

	// MinBuffered is how many bytes one direction of a fresh stream takes at least
	// while the peer does not read. Zero means 64 KiB.
	MinBuffered int

	// Skip names the promises that the implementation does not keep.
	Skip Skip
}

// Pair is one connection.
type Pair struct {
	Dialed   transport.Mux // the side that dialed: the agent
	Accepted transport.Mux // the side that accepted: the gateway

	// Cut breaks the carrier under the connection without a goodbye, as a
	// pulled cable or a killed proxy does: close the sockets, not the Muxes.
	// Both Muxes must notice within 10 seconds by themselves; a carrier that
	// learns of it by silence alone needs a short time limit here. Cut may be
	// called concurrently with everything else, and again.
	Cut func()
}

// Skip has one field for each promise that an implementation may fail to keep;
// the value is the reason, for people. The tests of a skipped promise still run:
// those that fail are reported as skipped, with the reason. If none of them
// fails the run fails, because the skip is out of date.
//
// That streams pass the net.Conn suite cannot be skipped.
type Skip struct {
	Identity     string // the peer's verified certificate is in ConnectionState, both ways
	Addresses    string // addresses are never nil
	HalfClose    string // CloseWrite ends one direction, after all its data
	Close        string // Close delivers what was written and tells the peer's writer
	Reset        string // Reset arrives with its code, on the right side
	Deadlines    string // deadlines unblock, can be moved and cleared
	Writes       string // any size of Write arrives unchanged
	Backpressure string // a stalled reader stops the writer and loses nothing
	Stall        string // stalled streams delay nobody else
	Context      string // OpenStream and AcceptStream honour ctx
	CloseCause   string // the cause of the end is the same on both sides
	CloseEndsAll string // the end of the connection ends every pending call
	Cut          string // a cut carrier is never a clean end
	Scale        string // many streams, much data
	Concurrency  string // all methods at once neither race nor deadlock
	GC           string // a garbage collection harms no stream in use
	Leaks        string // what was closed leaves no goroutine
	MaxStreams   string // the limit on streams holds, and its slots come back
}
