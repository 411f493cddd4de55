package splice

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestABufferIsLargeOnlyWhileMuchArrivesAtOnce(t *testing.T) {
	var b buffer
	for _, step := range []struct{ want, filled int }{
		{smallBuffer, 0},
		{smallBuffer, 100},
		{smallBuffer, smallBuffer},
		{largeBuffer, largeBuffer},
		{largeBuffer, smallBuffer},
		{largeBuffer, smallBuffer - 1},
		{smallBuffer, 1},
	} {
		require.Len(t, b.next(), step.want)
		b.filled = step.filled
	}
	require.Nil(t, b.large, "given back")
	b.filled = smallBuffer
	b.next()
	b.release()
	b.release()
	require.Nil(t, b.large)
}
