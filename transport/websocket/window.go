package websocket

import (
	"errors"
	"fmt"
	"time"
)

// frameCost is what a data frame of n bytes takes from the window of its stream.
// A frame of one byte costs the receiver some 60 bytes of bookkeeping; if it
// counted as one byte, a window of small frames would take sixty times its size.
func frameCost(n int) uint64 { return uint64(n) + frameOverhead }

const frameOverhead = 64

// outbound counts one direction at its sender.
type outbound struct {
	bytes uint64 // handed to the sender
	cost  uint64 // the same, as frameCost counts
	freed uint64 // cost that the peer's reader has consumed
	limit uint64 // what cost may reach
}

// take returns how much of n bytes may go out in one frame, and counts it.
func (o *outbound) take(n int) int {
	room := o.limit - o.cost
	if room <= frameOverhead {
		return 0
	}
	n = min(n, maxFrame, int(room-frameOverhead))
	o.bytes += uint64(n)
	o.cost += frameCost(n)
	return n
}

// giveBack undoes a take whose frame was not sent.
func (o *outbound) giveBack(n int) {
	o.bytes -= uint64(n)
	o.cost -= frameCost(n)
}

// update applies the peer's window update.
func (o *outbound) update(u windowUpdate) error {
	freed := o.freed + uint64(u.consumed-uint32(o.freed)) // undoes the modulo
	if freed > o.cost {
		return errors.New("the peer consumed more than was sent")
	}
	if u.window > largestWindow {
		return fmt.Errorf("window of %d bytes", u.window)
	}
	o.freed = freed
	o.limit = max(o.limit, freed+uint64(u.window))
	return nil
}

// inbound counts one direction at its receiver.
type inbound struct {
	arrived  uint64 // bytes
	consumed uint64 // bytes
	cost     uint64 // what arrived, as frameCost counts
	freed    uint64 // what of cost was consumed
	told     uint64 // what of freed the peer knows
	window   uint64
	frames   []uint64 // where the frames end that are not consumed
	ended    bool     // arrived is all there will ever be

	since     time.Time // when the measurement of the reader began
	sinceUsed uint64    // and freed at that time
}

// frame counts a data frame that arrived.
func (i *inbound) frame(n int) error {
	if i.ended {
		return errors.New("data after the end of its direction")
	}
	if i.cost += frameCost(n); i.cost > i.told+i.window {
		return errors.New("more data than the window allows")
	}
	i.arrived += uint64(n)
	i.frames = append(i.frames, i.arrived)
	return nil
}

// end records the peer's end of the direction.
func (i *inbound) end(total uint64) error {
	if i.ended {
		return errors.New("a second end of a direction")
	}
	if total != i.arrived {
		return fmt.Errorf("end after %d bytes, but %d arrived", total, i.arrived)
	}
	i.ended = true
	return nil
}

// complete reports whether everything was consumed up to the end.
func (i *inbound) complete() bool { return i.ended && i.consumed == i.arrived }

// read counts n bytes that the reader consumed and reports whether the peer
// should be told.
func (i *inbound) read(n int) bool {
	i.consumed += uint64(n)
	i.freed += uint64(n)
	done := 0
	for done < len(i.frames) && i.frames[done] <= i.consumed {
		done++
	}
	i.freed += uint64(done) * frameOverhead
	if i.frames = i.frames[done:]; len(i.frames) == 0 {
		i.frames = nil
	}
	return !i.ended && i.freed-i.told >= i.window/4
}

// small reports whether the window limits a reader that is fast: one that
// consumes all of it within four round trips waits for the peer part of the
// time. The measurement covers at least half a window.
func (i *inbound) small(now time.Time, roundTrip time.Duration) bool {
	used := i.freed - i.sinceUsed
	if !i.since.IsZero() && used < i.window/2 {
		return false
	}
	fast := !i.since.IsZero() && now.Sub(i.since).Seconds()*float64(i.window) < 4*roundTrip.Seconds()*float64(used)
	i.since, i.sinceUsed = now, i.freed
	return fast
}

// tell returns the update for the peer.
func (i *inbound) tell() windowUpdate {
	i.told = i.freed
	return windowUpdate{uint32(i.freed), uint32(i.window)}
}
