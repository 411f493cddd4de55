package websocket

import (
	"bytes"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func testSender() *sender {
	return newSender(&recording{bytes.NewReader(nil)}, 7, time.Minute, func() {}, func(error) {})
}

func TestNothingOvertakesTheFirstGrant(t *testing.T) {
	s := testSender()
	s.grant(9)
	s.overtake(control{kindReset, 3, 0})
	s.fromSmux(appendHeader(nil, cmdOpen, 0, 3))
	message, more := s.take()
	require.True(t, more)
	require.True(t, bytes.HasPrefix(message, appendControl(nil, control{kindStreams, 0, 7})))
}

func TestWhatMustNotOvertakeStaysInOrder(t *testing.T) {
	s := testSender()
	s.take()
	st := newStream(nil, 3, true)
	s.fromSmux(appendHeader(nil, cmdOpen, 0, 3))
	require.True(t, s.data(st, []byte("data")))
	s.inOrder(control{kindEnd, 3, 4})
	s.fromSmux(appendHeader(nil, cmdForget, 0, 3))
	s.overtake(control{kindStop, 3, 0})
	message, _ := s.take()

	want := appendHeader(nil, cmdOpen, 0, 3)
	want = appendControl(want, control{kindStop, 3, 0}) // after its stream was opened, before its data
	want = appendData(want, 3, []byte("data"))
	want = appendControl(want, control{kindEnd, 3, 4})
	want = appendHeader(want, cmdForget, 0, 3)
	require.Equal(t, want, message)
}

func TestAShortWriteDoesNotWaitForManyLongOnes(t *testing.T) {
	s := testSender()
	s.take()
	long := make([]byte, maxFrame)
	var line []*stream
	for i := range uint32(100) {
		st := newStream(nil, 3+2*i, true)
		if !s.data(st, long) {
			line = append(line, st)
		}
	}
	short := newStream(nil, 999, true)
	require.False(t, s.data(short, []byte("ping")))
	s.take()
	require.True(t, s.taken(short), "it goes with the next message")
	for i, st := range line {
		for !s.taken(st) {
			s.take()
		}
		for _, later := range line[min(i+4, len(line)):] {
			require.False(t, s.taken(later), "the long ones go in their order")
		}
	}
}

func TestShortWritesDoNotStarveALongOne(t *testing.T) {
	s := testSender()
	s.take()
	for i := range uint32(2) {
		require.True(t, s.data(newStream(nil, 3+2*i, true), make([]byte, maxFrame)))
	}
	long := newStream(nil, 101, true)
	require.False(t, s.data(long, make([]byte, maxFrame)))
	for i := range uint32(200) {
		require.False(t, s.data(newStream(nil, 1003+2*i, true), make([]byte, smallWrite)))
	}
	s.take()
	require.True(t, s.taken(long))
}

func TestAnOfferThatIsWithdrawnIsNotSent(t *testing.T) {
	s := testSender()
	s.take()
	for i := range uint32(3) {
		s.data(newStream(nil, 3+2*i, true), make([]byte, maxFrame))
	}
	st := newStream(nil, 101, true)
	require.False(t, s.data(st, []byte("never")))
	require.True(t, s.withdraw(st))
	require.False(t, s.withdraw(st))
	for {
		message, _ := s.take()
		if message == nil {
			break
		}
		require.NotContains(t, string(message), "never")
	}
}

func TestUpdatesOfAWindowAreMerged(t *testing.T) {
	s := testSender()
	s.take()
	a, b := newStream(nil, 3, true), newStream(nil, 5, true)
	for i := range uint32(10) {
		s.window(a, windowUpdate{i, initialWindow})
		s.window(b, windowUpdate{2 * i, initialWindow})
		s.grant(uint64(i))
	}
	message, _ := s.take()
	want := appendControl(nil, control{kindStreams, 0, 9})
	want = appendWindow(want, 3, windowUpdate{9, initialWindow})
	want = appendWindow(want, 5, windowUpdate{18, initialWindow})
	require.Equal(t, want, message)
	message, _ = s.take()
	require.Nil(t, message)
}
