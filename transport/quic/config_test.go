package quic

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestStalledStreamsFitIntoTheConnectionWindow(t *testing.T) {
	for _, c := range []Config{
		{},
		{MaxStreams: 1},
		{MaxStreams: 256, StreamWindow: 16 << 20},
		{MaxStreams: 4096, StreamWindow: 256 << 10},
		{ConnectionWindow: withLag(2 * 1024 * freshWindow)},
	} {
		q, err := c.quic(time.Second)
		require.NoError(t, err)
		assert.Equal(t, q.InitialConnectionReceiveWindow, q.MaxConnectionReceiveWindow, "a stalled connection cannot grow")

		// What is read comes back as credit when it is a quarter of the window.
		room := q.MaxConnectionReceiveWindow - q.MaxConnectionReceiveWindow/4
		streams := 2 * uint64(q.MaxIncomingStreams) // opened by either side
		assert.LessOrEqual(t, streams*q.InitialStreamReceiveWindow, room)
		if c.ConnectionWindow == 0 {
			grown := min(streams, 256)
			assert.LessOrEqual(t, grown*q.MaxStreamReceiveWindow+(streams-grown)*q.InitialStreamReceiveWindow, room)
		}
	}
}

func TestTheDocumentedDefaultsHold(t *testing.T) {
	q, err := Config{}.quic(defaultHandshakeTimeout)
	require.NoError(t, err)
	assert.EqualValues(t, 1024, q.MaxIncomingStreams)
	assert.EqualValues(t, 1, q.MaxIncomingUniStreams)
	assert.EqualValues(t, 16<<10, q.InitialStreamReceiveWindow)
	assert.EqualValues(t, 1<<20, q.MaxStreamReceiveWindow)
	assert.EqualValues(t, withLag(284<<20), q.MaxConnectionReceiveWindow)
	assert.Equal(t, 9*time.Second, q.MaxIdleTimeout/idleMargin)
	assert.Equal(t, 3*time.Second, q.KeepAlivePeriod)
	assert.Equal(t, 5*time.Second, 2*q.HandshakeIdleTimeout)
	assert.False(t, q.Allow0RTT)
	assert.False(t, q.EnableDatagrams)
}
