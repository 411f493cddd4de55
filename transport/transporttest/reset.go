package transporttest

import (
	"math"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func resetTests() []test {
	return []test{
		{"future calls of both sides return the code", resetFutureCalls},
		{"pending calls of both sides return the code", resetPendingCalls},
		{"the first Reset counts, and Close after it changes nothing for the peer", firstResetWins},
		{"a reset harms no other stream", resetIsLocal},
	}
}

// resetCodes are some that mean something and two that nobody knows yet.
var resetCodes = [...]transport.Code{
	transport.NoError, transport.Internal, transport.Denied, transport.Timeout, transport.Truncated, 1000, math.MaxUint32,
}

func resetFutureCalls(t *trial) {
	t.eachWay(func(c oneWay) {
		for i, code := range resetCodes {
			s, peer := t.open(c)
			if i%2 == 1 {
				s, peer = peer, s
			}
			require.NoError(t, s.Reset(code), c.name)
			_, err := s.Read(make([]byte, 1))
			requireReset(t, err, code, false, c.name+": Read of the side that reset")
			_, err = s.Write(make([]byte, 1))
			requireReset(t, err, code, false, c.name+": Write of the side that reset")

			err = wait(t, pendingRead(peer), c.name+": Read after the peer's Reset").err
			requireReset(t, err, code, true, c.name+": Read of the peer")
			err = wait(t, async(func() error { return writeUntilError(peer) }), c.name+": Write after the peer's Reset")
			requireReset(t, err, code, true, c.name+": Write of the peer")
			require.NoError(t, peer.Close(), c.name)
		}
	})
}

func resetPendingCalls(t *trial) {
	t.eachWay(func(c oneWay) {
		for i, code := range []transport.Code{transport.Canceled, transport.Overloaded} {
			s, peer := t.open(c)
			if i%2 == 1 {
				s = peer
			}
			// Each side has either its Write or its Read pending, as the other
			// direction is needed empty for the Read.
			write, read := pendingWrite(t, s), pendingRead(s)
			stays(t, read, 20*time.Millisecond, c.name+": a Read ended although nothing was written")
			stays(t, write, 20*time.Millisecond, c.name+": a Write of too much ended although nobody reads")
			require.NoError(t, s.Reset(code), c.name)
			requireReset(t, wait(t, read, c.name+": the pending Read").err, code, false, c.name+": pending Read of the side that reset")
			requireReset(t, wait(t, write, c.name+": the pending Write").err, code, false, c.name+": pending Write of the side that reset")

			s, peer = t.open(c)
			if i%2 == 1 {
				s, peer = peer, s
			}
			write, read = pendingWrite(t, peer), pendingRead(peer)
			stays(t, read, 20*time.Millisecond, c.name+": a Read ended although nothing was written")
			stays(t, write, 20*time.Millisecond, c.name+": a Write of too much ended although nobody reads")
			require.NoError(t, s.Reset(code), c.name)
			requireReset(t, wait(t, read, c.name+": the peer's pending Read").err, code, true, c.name+": pending Read of the peer")
			requireReset(t, wait(t, write, c.name+": the peer's pending Write").err, code, true, c.name+": pending Write of the peer")
		}
	})
}

func firstResetWins(t *trial) {
	t.eachWay(func(c oneWay) {
		s, peer := t.open(c)
		require.NoError(t, s.Reset(transport.Denied), c.name)
		require.NoError(t, s.Reset(transport.Internal), "%s: a second Reset does nothing", c.name)
		_ = s.Close() // may say that the stream has ended
		err := wait(t, pendingRead(peer), c.name+": Read after the peer's Reset").err
		requireReset(t, err, transport.Denied, true, c.name)
		require.NoError(t, peer.Reset(transport.Canceled), "%s: Reset of a stream that the peer has reset", c.name)
	})
}

func resetIsLocal(t *trial) {
	t.eachWay(func(c oneWay) {
		healthy, echoed := t.open(c)
		go echoStream(echoed)
		for i := range 20 {
			s, peer := t.open(c)
			if i%2 == 1 {
				s, peer = peer, s
			}
			_, err := s.Write(make([]byte, 10_000)) // in flight, then thrown away
			require.NoError(t, err, c.name)
			require.NoError(t, s.Reset(transport.Canceled), c.name)
			require.NoError(t, peer.Close(), c.name)
			require.NoError(t, roundTrip(healthy, t.patience), "%s: the stream beside the reset one", c.name)
		}
	})
}
