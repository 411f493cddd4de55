package transporttest

import (
	"io"
	"time"

	"github.com/stretchr/testify/require"
)

func deadlineTests() []test {
	return []test{
		{"a deadline ends a pending Read and a pending Write", deadlineEndsPending},
		{"a deadline set while a call is pending ends it", deadlineSetLater},
		{"a cleared or moved deadline ends nothing", deadlineCleared},
		{"after a timeout the stream goes on", timeoutThenMore},
		{"a Write that timed out reports how much arrives", timedOutWriteCount},
	}
}

const shortly = 50 * time.Millisecond

func deadlineEndsPending(t *trial) {
	t.eachWay(func(c oneWay) {
		for _, side := range []string{"opener", "acceptor"} {
			s, peer := t.open(c)
			if side == "acceptor" {
				s, peer = peer, s
			}
			start := time.Now()
			require.NoError(t, s.SetDeadline(start.Add(shortly)), c.name)
			read, write := pendingRead(s), pendingWrite(t, s)
			requireTimeout(t, wait(t, read, c.name+": Read with a deadline").err, c.name+": Read of the "+side)
			requireTimeout(t, wait(t, write, c.name+": Write with a deadline").err, c.name+": Write of the "+side)
			require.GreaterOrEqual(t, time.Since(start), shortly, "%s: timed out before the deadline", c.name)
			require.NoError(t, peer.Close(), c.name)
		}
	})
}

func deadlineSetLater(t *trial) {
	t.eachWay(func(c oneWay) {
		for _, past := range []bool{true, false} {
			s, _ := t.open(c)
			read, write := pendingRead(s), pendingWrite(t, s)
			stays(t, read, 20*time.Millisecond, c.name+": a Read ended although nothing was written")
			stays(t, write, 20*time.Millisecond, c.name+": a Write of too much ended although nobody reads")
			at := time.Now().Add(shortly)
			if past {
				at = time.Unix(1, 0)
			}
			require.NoError(t, s.SetReadDeadline(at), c.name)
			requireTimeout(t, wait(t, read, c.name+": the pending Read").err, c.name+": Read")
			require.NoError(t, s.SetWriteDeadline(at), c.name)
			requireTimeout(t, wait(t, write, c.name+": the pending Write").err, c.name+": Write")
		}
	})
}

func deadlineCleared(t *trial) {
	t.eachWay(func(c oneWay) {
		for _, to := range []time.Time{{}, time.Now().Add(time.Hour)} {
			s, peer := t.open(c)
			require.NoError(t, s.SetReadDeadline(time.Now().Add(shortly)), c.name)
			read := pendingRead(s)
			require.NoError(t, s.SetReadDeadline(to), c.name)
			stays(t, read, 3*shortly, c.name+": a Read ended at a deadline that was moved away")
			_, err := peer.Write([]byte{1})
			require.NoError(t, err, c.name)
			require.Equal(t, result{1, nil}, wait(t, read, c.name+": Read after data arrived"), c.name)
		}
	})
}

func timeoutThenMore(t *trial) {
	t.eachWay(func(c oneWay) {
		opened, accepted := t.open(c)
		go echoStream(accepted)
		for range 3 {
			require.NoError(t, opened.SetReadDeadline(time.Now().Add(5*time.Millisecond)), c.name)
			_, err := opened.Read(make([]byte, 1))
			requireTimeout(t, err, c.name+": Read")
			_, err = opened.Read(make([]byte, 1))
			requireTimeout(t, err, c.name+": Read again")
			require.NoError(t, roundTrip(opened, t.patience), "%s: after the deadline was cleared", c.name)
		}
	})
}

func timedOutWriteCount(t *trial) {
	t.eachWay(func(c oneWay) {
		writer, reader := t.open(c)
		total := 0
		for range 2 { // the second finds the window full from the start
			n, err := fill(writer, 2*shortly, t.most())
			require.NoError(t, err, c.name)
			total += n
		}
		read := async(func() result {
			got, err := io.ReadAll(reader)
			return result{len(got), err}
		})
		require.NoError(t, writer.SetWriteDeadline(time.Time{}), c.name)
		require.NoError(t, wait(t, async(writer.CloseWrite), c.name+": CloseWrite after a timeout"), c.name)
		r := wait(t, read, c.name+": reading what arrived")
		require.NoError(t, r.err, "%s: the stream outlives a Write that timed out", c.name)
		require.Equal(t, total, r.n, "%s: bytes that Write reported as sent, and bytes that arrived", c.name)
	})
}
