package transporttest

import (
	"net"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func closeTests() []test {
	return []test{
		{"what was written before Close arrives whole", closeDelivers},
		{"the peer's Write ends with the code Canceled", closeTellsWriter},
		{"this side's calls end with net.ErrClosed", closeEndsLocalCalls},
		{"a Close that interrupts a Write is a reset, not an end", closeInterruptsWrite},
		{"Close does not wait for a peer that does not read", closeDoesNotWait},
	}
}

func closeDelivers(t *trial) {
	t.eachWay(func(c oneWay) {
		for round, size := range []int{0, 1, 2, 100, 4096, 15_000, 30_000, 60_000} {
			if size > t.least() {
				break // nobody reads yet
			}
			opened, accepted := t.open(c)
			from, to := opened, accepted
			if round%2 == 1 {
				from, to = accepted, opened
			}
			_, err := from.Write(pattern(0, size))
			require.NoError(t, err, c.name)
			require.NoError(t, from.Close(), c.name)
			t.requireHealthy(c) // the close has arrived before anybody reads
			got, err := readAll(t, to)
			require.NoError(t, err, "%s: %d bytes", c.name, size)
			require.Len(t, got, size, "%s: every byte arrives before io.EOF", c.name)
			requirePattern(t, got)
			require.NoError(t, to.Close(), c.name)
		}
	})
}

func closeTellsWriter(t *trial) {
	t.eachWay(func(c oneWay) {
		for _, side := range []string{"opener", "acceptor"} {
			for _, pending := range []bool{false, true} {
				writer, closer := t.open(c)
				if side == "opener" {
					writer, closer = closer, writer
				}
				var write <-chan result
				if pending {
					write = pendingWrite(t, writer)
					stays(t, write, 20*time.Millisecond, c.name+": a Write of too much ended although nobody reads")
				}
				require.NoError(t, closer.Close(), c.name)
				if pending {
					r := wait(t, write, c.name+": the Write that was pending when the peer closed")
					requireReset(t, r.err, transport.Canceled, true, c.name+": the pending Write, closed by the "+side)
				}
				err := wait(t, async(func() error { return writeUntilError(writer) }), c.name+": Write after the peer closed")
				requireReset(t, err, transport.Canceled, true, c.name+": a later Write, closed by the "+side)
				require.NoError(t, writer.Close(), c.name)
			}
		}
	})
}

// writeUntilError writes small pieces, since the news that ends it takes a while
// to arrive.
func writeUntilError(s transport.Stream) error {
	for {
		if _, err := s.Write(make([]byte, 100)); err != nil {
			return err
		}
	}
}

func closeEndsLocalCalls(t *trial) {
	t.eachWay(func(c oneWay) {
		for _, closeAccepted := range []bool{false, true} {
			s, peer := t.open(c)
			if closeAccepted {
				s, peer = peer, s
			}
			read := pendingRead(s)
			stays(t, read, 20*time.Millisecond, c.name+": a Read ended although nothing was written")
			require.NoError(t, s.Close(), c.name)
			r := wait(t, read, c.name+": the Read that was pending at Close")
			require.ErrorIs(t, r.err, net.ErrClosed, "%s: the pending Read", c.name)
			_, err := s.Read(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed, "%s: a later Read", c.name)
			_, err = s.Write(make([]byte, 1))
			require.ErrorIs(t, err, net.ErrClosed, "%s: a later Write", c.name)
			require.NoError(t, s.Reset(transport.Denied), "%s: Reset after Close does nothing", c.name)
			got, err := readAll(t, peer)
			require.NoError(t, err, "%s: the peer still reads a clean end", c.name)
			require.Empty(t, got, c.name)
		}
	})
}

func closeInterruptsWrite(t *trial) {
	t.eachWay(func(c oneWay) {
		writer, reader := t.open(c)
		write := pendingWrite(t, writer)
		stays(t, write, 50*time.Millisecond, c.name+": a Write of too much ended although nobody reads")
		require.NoError(t, writer.Close(), c.name)
		r := wait(t, write, c.name+": the Write that Close interrupted")
		require.ErrorIs(t, r.err, net.ErrClosed, "%s: the interrupted Write", c.name)
		_, err := readAll(t, reader)
		requireReset(t, err, transport.Canceled, true, c.name+": Read of what was interrupted")
	})
}

func closeDoesNotWait(t *trial) {
	t.eachWay(func(c oneWay) {
		writer, reader := t.open(c)
		taken, err := fill(writer, 200*time.Millisecond, t.most())
		require.NoError(t, err, c.name)
		require.NoError(t, wait(t, async(writer.Close), c.name+": Close with a full window"))
		// No Write was under way, so this Close interrupted none.
		got, err := readAll(t, reader)
		require.NoError(t, err, "%s: what the Writes took arrives", c.name)
		require.Len(t, got, taken, "%s: what the Writes took arrives", c.name)
		requirePattern(t, got)
	})
}
