package mux_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"maps"
	"math"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/mux"
	"github.com/outgate/outgate/transport"
)

const maxStreams = 16

// attacks are what a peer may send after STREAMS, and a word of the reason that it
// is given. The other side has opened a stream.
var attacks = map[string]struct {
	send func(first, ours uint32) []byte
	says string
}{
	"text":                  {func(_, _ uint32) []byte { return []byte("GET / HTTP/1.1\r\n\r\n") }, "type 71"},
	"zeros":                 {func(_, _ uint32) []byte { return make([]byte, 1000) }, "type 0"},
	"STREAMS again":         {func(_, _ uint32) []byte { return frame32(streamsFrame, 0, 100) }, "STREAMS of 100 after 100"},
	"STREAMS of fewer":      {func(_, _ uint32) []byte { return frame32(streamsFrame, 0, 99) }, "STREAMS of 99"},
	"OPEN out of turn":      {func(first, _ uint32) []byte { return frame(openFrame, first+2) }, "out of turn"},
	"OPEN twice":            {func(first, _ uint32) []byte { return bytes.Repeat(frame(openFrame, first), 2) }, "out of turn"},
	"OPEN with our parity":  {func(_, ours uint32) []byte { return frame(openFrame, ours+2) }, "out of turn"},
	"DATA of no bytes":      {func(first, _ uint32) []byte { return join(frame(openFrame, first), data(first, 0)) }, "DATA of 0 bytes"},
	"DATA of too many":      {func(first, _ uint32) []byte { return join(frame(openFrame, first), data(first, longestData+1)) }, "DATA of 65537 bytes"},
	"DATA for no stream":    {func(first, _ uint32) []byte { return data(first, 1) }, "not opened"},
	"DATA for none of ours": {func(_, ours uint32) []byte { return data(ours+2, 1) }, "not opened"},
	"DATA after END":        {func(_, ours uint32) []byte { return join(frame64(endFrame, ours, 0), data(ours, 1)) }, "after END"},
	"more than the first credit, to a stream that has little": {func(first, _ uint32) (all []byte) {
		for i := range uint32(maxStreams) { // which use up Config.WindowBudget
			all = append(all, frame(openFrame, first+2*i)...)
		}
		return append(all, data(first+2*(maxStreams-1), firstCredit+1)...)
	}, "the credit ends at 16384 (Config.MaxWindow"},
	"more than the credit, in pieces": {func(_, ours uint32) []byte { return bytes.Repeat(data(ours, 5000), 60) }, "the credit ends at 262144"},
	"CREDIT that rises too little":    {func(_, ours uint32) []byte { return frame64(creditFrame, ours, firstCredit+4095) }, "rises by 4096"},
	"CREDIT that falls":               {func(_, ours uint32) []byte { return frame64(creditFrame, ours, 0) }, "CREDIT up to byte 0"},
	"CREDIT without bounds":           {func(_, ours uint32) []byte { return frame64(creditFrame, ours, math.MaxUint64) }, "at most"},
	"CREDIT just too far":             {func(_, ours uint32) []byte { return frame64(creditFrame, ours, 1<<24+1) }, "at most 16777216"},
	"CREDIT for no stream":            {func(first, _ uint32) []byte { return frame64(creditFrame, first, 1<<20) }, "not opened"},
	"END of what did not arrive":      {func(_, ours uint32) []byte { return join(data(ours, 3), frame64(endFrame, ours, 4)) }, "END after 4 bytes, but 3"},
	"END before what arrived":         {func(_, ours uint32) []byte { return join(data(ours, 3), frame64(endFrame, ours, 2)) }, "END after 2 bytes, but 3"},
	"END twice":                       {func(_, ours uint32) []byte { return bytes.Repeat(frame64(endFrame, ours, 0), 2) }, "second END"},
	"END of no stream":                {func(first, _ uint32) []byte { return frame64(endFrame, first, 0) }, "not opened"},
	"RESET twice":                     {func(_, ours uint32) []byte { return bytes.Repeat(frame32(resetFrame, ours, 4), 2) }, "second RESET"},
	"RESET of no stream":              {func(first, _ uint32) []byte { return frame32(resetFrame, first, 4) }, "not opened"},
	"STOP twice":                      {func(_, ours uint32) []byte { return bytes.Repeat(frame32(stopFrame, ours, 4), 2) }, "second STOP"},
	"STOP of no stream":               {func(_, _ uint32) []byte { return frame32(stopFrame, 9999, 4) }, "not opened"},
	"PONG for no PING":                {func(_, _ uint32) []byte { return frame64(pongFrame, 0, 77) }, "for no PING"},
	"PING upon PING":                  {func(_, _ uint32) []byte { return bytes.Repeat(frame64(pingFrame, 0, 1), 10_000) }, "before the PONG"},
	"a million OPENs": {func(first, _ uint32) []byte {
		var all []byte
		for i := range uint32(1_000_000) {
			all = binary.BigEndian.AppendUint64(all, openFrame<<56|uint64(first+2*i))
		}
		return all
	}, "Config.MaxStreams"},
}

func hostileConfig() mux.Config {
	return mux.Config{MaxStreams: maxStreams, WindowBudget: 256 << 10}
}

func TestAPeerThatBreaksTheProtocolLosesItsConnection(t *testing.T) {
	for name, attack := range attacks {
		t.Run(name, func(t *testing.T) {
			bothWays(t, hostileConfig(), func(t *testing.T, attacker raw, m *mux.Mux) {
				opened(t, m)
				last := attacker.goodbye()
				attacker.send(attack.send(attacker.first, attacker.ours))
				cause := causeOf(t, m)
				require.Equal(t, transport.Protocol, cause.Code, cause.Reason)
				require.False(t, cause.Remote)
				require.Contains(t, cause.Reason, attack.says)
				_ = attacker.conn.CloseWrite()
				said := eventually(t, last, "the goodbye")
				require.NotEmpty(t, said, "the peer learns why, and that it was the last word")
				require.EqualValues(t, transport.Protocol, binary.BigEndian.Uint32(said))
				require.Equal(t, cause.Reason, string(said[4:]))
			})
		})
	}
}

// What is just inside the limits must not be an attack, or the test above would
// prove nothing about them.
func TestAPeerThatUsesItsLimitsToTheLastByteKeepsItsConnection(t *testing.T) {
	bothWays(t, hostileConfig(), func(t *testing.T, attacker raw, m *mux.Mux) {
		ours := opened(t, m)
		var last uint32
		for i := range uint32(maxStreams) {
			last = attacker.first + 2*i
			attacker.send(frame(openFrame, last))
		}
		attacker.send(data(attacker.ours, longestData), bytes.Repeat(data(attacker.ours, 1), 3*longestData))
		attacker.send(frame64(endFrame, attacker.ours, 4*longestData))
		attacker.send(data(last, firstCredit), frame64(endFrame, last, firstCredit))
		attacker.send(frame64(creditFrame, attacker.ours, 1<<24), frame32(streamsFrame, 0, 101), frame64(pingFrame, 0, 1))
		got, err := io.ReadAll(ours)
		require.NoError(t, err)
		require.Len(t, got, 4*longestData)
		for range maxStreams - 1 {
			accepted(t, m)
		}
		got, err = io.ReadAll(accepted(t, m))
		require.NoError(t, err)
		require.Len(t, got, firstCredit)
		require.NoError(t, m.Context().Err())
	})
}

func TestWordsTooLateAboutAStreamAreIgnored(t *testing.T) {
	bothWays(t, hostileConfig(), func(t *testing.T, attacker raw, m *mux.Mux) {
		attacker.goodbye()
		attacker.send(frame(openFrame, attacker.first), data(attacker.first, 1000))
		s := accepted(t, m)
		_, err := io.ReadFull(s, make([]byte, 1000))
		require.NoError(t, err)
		require.NoError(t, s.Close())
		// All of this may have been under way when the stream was closed: the rest
		// of the credit, one word of each kind, and credit for the other direction.
		attacker.send(bytes.Repeat(data(attacker.first, 1), firstCredit-1000))
		attacker.send(frame64(endFrame, attacker.first, firstCredit), frame32(stopFrame, attacker.first, 1), frame32(resetFrame, attacker.first, 1))
		for limit := uint64(firstCredit + 4096); limit <= 1<<24; limit += 4096 {
			attacker.send(frame64(creditFrame, attacker.first, limit))
		}
		next := attacker.first + 2
		attacker.send(frame(openFrame, next), frame(dataFrame, next, []byte("still here")...), frame64(endFrame, next, 10))
		got, err := io.ReadAll(accepted(t, m))
		require.NoError(t, err)
		require.Equal(t, "still here", string(got))
	})
}

func TestAPeerThatGoesOnAboutStreamsThatAreOverLosesItsConnection(t *testing.T) {
	for name, flood := range map[string]func(id uint32) []byte{
		"DATA":   func(id uint32) []byte { return bytes.Repeat(data(id, 1000), 2000) },
		"CREDIT": func(id uint32) []byte { return bytes.Repeat(frame64(creditFrame, id, 1<<20), 50_000) },
		"END":    func(id uint32) []byte { return bytes.Repeat(frame64(endFrame, id, 0), 50_000) },
		"RESET":  func(id uint32) []byte { return bytes.Repeat(frame32(resetFrame, id, 0), 50_000) },
		"STOP":   func(id uint32) []byte { return bytes.Repeat(frame32(stopFrame, id, 0), 50_000) },
	} {
		t.Run(name, func(t *testing.T) {
			bothWays(t, hostileConfig(), func(t *testing.T, attacker raw, m *mux.Mux) {
				attacker.goodbye()
				attacker.send(frame(openFrame, attacker.first))
				require.NoError(t, accepted(t, m).Close())
				attacker.send(flood(attacker.first))
				cause := causeOf(t, m)
				require.Equal(t, transport.Protocol, cause.Code)
				require.Contains(t, cause.Reason, "streams that are over")
			})
		})
	}
}

// Everything in pieces of one byte, as the network may deliver it.
func TestFramesMayArriveInAnyPieces(t *testing.T) {
	bothWays(t, mux.Config{}, func(t *testing.T, attacker raw, m *mux.Mux) {
		for _, b := range join(frame(openFrame, attacker.first), frame(dataFrame, attacker.first, []byte("hello")...), frame64(endFrame, attacker.first, 5)) {
			attacker.send([]byte{b})
		}
		got, err := io.ReadAll(accepted(t, m))
		require.NoError(t, err)
		require.Equal(t, "hello", string(got))
	})
}

func TestAConnectionMustStartWithStreams(t *testing.T) {
	for name, first := range map[string][]byte{
		"OPEN": frame(openFrame, 1), "PING": frame64(pingFrame, 0, 1), "DATA": data(1, 1), "PONG": frame64(pongFrame, 0, 1),
	} {
		t.Run(name, func(t *testing.T) {
			conn, theirs := sockets(t)
			m := mux.New(conn, false, tls.ConnectionState{}, mux.Config{})
			t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
			t.Cleanup(func() { _ = theirs.Close() })
			raw{tb: t, conn: theirs}.send(first)
			require.Contains(t, causeOf(t, m).Reason, name+" before STREAMS")
			select {
			case <-m.Ready():
				t.Error("it is ready")
			default:
			}
		})
	}
}

// A peer that never reads and opens, writes, and asks as much as it may costs a
// bounded amount of memory, and its connection.
func TestAPeerThatNeverReadsLosesItsConnection(t *testing.T) {
	bothWays(t, mux.Config{WriteTimeout: 300 * time.Millisecond}, func(t *testing.T, attacker raw, m *mux.Mux) {
		s := opened(t, m)
		attacker.send(frame64(creditFrame, attacker.ours, 1<<24))
		write := make(chan error, 1)
		go func() {
			_, err := s.Write(make([]byte, 64<<20))
			write <- err
		}()
		go func() {
			for i := range uint32(1000) {
				attacker.send(frame(openFrame, attacker.first+2*i), data(attacker.first+2*i, 100))
			}
		}()
		start := time.Now()
		cause := causeOf(t, m)
		require.Equal(t, transport.Timeout, cause.Code)
		require.Contains(t, cause.Reason, "Config.WriteTimeout")
		require.ErrorIs(t, eventually(t, write, "the Write"), transport.Timeout)
		require.NoError(t, m.CloseWithError(transport.NoError, ""))
		require.Less(t, time.Since(start), 5*time.Second)
	})
}

// All streams that a peer may open, filled as far as it may, and nobody reads: the
// worst that a peer can do to the memory of this side.
func TestTheMemoryOfAConnectionIsBounded(t *testing.T) {
	const streams, budget = 1024, 8 << 20
	conn, theirs := sockets(t)
	m := mux.New(conn, false, tls.ConnectionState{}, mux.Config{MaxStreams: streams, WindowBudget: budget})
	t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") })
	t.Cleanup(func() { _ = theirs.Close() })
	attacker := raw{tb: t, conn: theirs}
	before := heap()
	credits := readCredits(attacker)
	attacker.send(frame32(streamsFrame, 0, 100))
	var open []byte
	for i := range uint32(streams) {
		open = append(open, frame(openFrame, 1+2*i)...)
	}
	attacker.send(open, data(1, firstCredit/2)) // which makes it tell the credit
	attacker.send(frame64(pingFrame, 0, 1))
	eventually(t, credits, "the PONG, which overtakes CREDIT")
	attacker.send(frame64(pingFrame, 0, 2))
	limits := eventually(t, credits, "the credit of all streams")
	total := 0
	for i := range uint32(streams) {
		id := 1 + 2*i
		n := max(limits[id], firstCredit)
		if id == 1 {
			n -= firstCredit / 2
		}
		total += n
		for ; n > 0; n -= min(n, 1500) {
			attacker.send(data(id, min(n, 1500)))
		}
	}
	require.LessOrEqual(t, total, streams*firstCredit+budget)
	require.Greater(t, total, streams*firstCredit+budget-1<<20, "it is used")
	attacker.send(frame32(stopFrame, 1, 77))
	stopped, err := m.AcceptStream(soon(t))
	require.NoError(t, err)
	require.NoError(t, stopped.SetWriteDeadline(time.Now().Add(patience)))
	for { // up to here everything has arrived
		if _, err := stopped.Write([]byte("x")); err != nil {
			require.ErrorIs(t, err, transport.Code(77))
			break
		}
		runtime.Gosched()
	}
	require.Less(t, heap()-before, int64(total)*5/4+4<<20)
	require.NoError(t, m.Context().Err())
}

func heap() int64 {
	runtime.GC()
	runtime.GC() // the first leaves what sits in a sync.Pool
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// readCredits returns the limits of all streams up to each PONG.
func readCredits(r raw) <-chan map[uint32]int {
	credits := make(chan map[uint32]int, 2)
	go func() {
		limits := map[uint32]int{}
		for {
			h := make([]byte, 8)
			if _, err := io.ReadFull(r.conn, h); err != nil {
				return
			}
			payload := make([]byte, binary.BigEndian.Uint32(h)&0xffffff)
			if _, err := io.ReadFull(r.conn, payload); err != nil {
				return
			}
			switch h[0] {
			case creditFrame:
				limits[binary.BigEndian.Uint32(h[4:])] = int(binary.BigEndian.Uint64(payload))
			case pongFrame:
				credits <- maps.Clone(limits) // as more may come
			}
		}
	}()
	return credits
}
