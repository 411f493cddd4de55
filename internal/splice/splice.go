package splice

import (
	"context"
	"net"
	"sync"

	"github.com/outgate/outgate/transport"
)

// Side is one of the parties of a [Join].
type Side int

// The sides that can fail.
const (
	None    Side = iota // nobody failed
	Stream              // the stream, the connection under it, or the peer at its end
	Target              // the target or the network to it
	Context             // neither; the context ended the join
)

// String names the side.
func (s Side) String() string {
	switch s {
	case None:
		return "none"
	case Stream:
		return "stream"
	case Target:
		return "target"
	case Context:
		return "context"
	}
	return "unknown side"
}

// Result says how a [Join] went.
type Result struct {
	ToTarget   int64 // bytes that the connection to the target took
	FromTarget int64 // bytes that the stream took
	Err        error // the first failure; nil if both directions ended with io.EOF and nothing was thrown away
	Side       Side  // whose failure Err is
}

// Join copies between stream and target in both directions until both have
// ended, and closes both before it returns. It uses the caller's goroutine and
// one more.
//
// The end of one side's data becomes the other side's: io.EOF from the target is
// followed by CloseWrite on the stream, io.EOF from the stream by CloseWrite on
// the target. A target without that method is closed when its own direction has
// ended or has been silent for 30 seconds, so that its answer is not cut off.
//
// A failure of one side reaches the other as a failure. When the target breaks,
// the stream is reset with the code TargetReset. When the stream breaks, the
// target is closed as [Abort] does. When ctx ends, both happen, and the code is
// the one that context.Cause(ctx) carries, Timeout for a deadline, or Canceled. A
// target that is a stream itself passes codes on, in both directions.
//
// A side that takes no more data has not broken, and what it still sends goes on:
//
//   - The target has stopped reading (EPIPE). A stream cannot refuse one
//     direction alone, so the rest of what the peer sends is read and thrown away;
//     its Write fails with the code Canceled once the target's direction has ended.
//   - The peer has called Close. What it had sent before is still delivered, for
//     which the target has 30 seconds, and then 5 seconds to end its own direction.
//     What the target sends meanwhile is thrown away.
//
// Err is then the error of the Write that found out.
//
// The end of a stream shows when it is read or written. While the target neither
// reads nor sends, only ctx ends the join; a ctx that ends with the connection
// under the stream keeps no target open after it.
func Join(ctx context.Context, stream transport.Stream, target net.Conn) Result {
	j := &join{stream: stream, target: target, writing: make(chan struct{}, 1)}
	aborted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(aborted)
		j.fail(Context, context.Cause(ctx))
	})
	var other sync.WaitGroup
	other.Go(j.toTarget)
	j.fromTarget()
	other.Wait()
	j.finish()
	if !stop() {
		<-aborted
	}
	return j.result
}
