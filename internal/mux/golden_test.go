package mux

import (
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

// golden are the frames in testdata/golden, which hold the code to its
// specification: whoever changes one of those files makes a new protocol.
var golden = map[string]struct {
	header header
	frame  []byte
}{
	"streams":         {header{frameStreams, 4, 0}, appendControl(nil, frameStreams, 0, 1024)},
	"open":            {header{frameOpen, 0, 1}, appendControl(nil, frameOpen, 1, 0)},
	"open-last":       {header{frameOpen, 0, math.MaxUint32}, appendControl(nil, frameOpen, math.MaxUint32, 0)},
	"data":            {header{frameData, 5, 2}, appendData(nil, 2, []byte("hello"))},
	"data-longest":    {header{frameData, maxData, 2}, appendData(nil, 2, make([]byte, maxData))},
	"credit":          {header{frameCredit, 8, 1}, appendControl(nil, frameCredit, 1, startWindow)},
	"credit-far":      {header{frameCredit, 8, 1}, appendControl(nil, frameCredit, 1, math.MaxUint64)},
	"end":             {header{frameEnd, 8, 2}, appendControl(nil, frameEnd, 2, 5)},
	"reset":           {header{frameReset, 4, 3}, appendControl(nil, frameReset, 3, uint64(transport.Denied))},
	"reset-any-code":  {header{frameReset, 4, 3}, appendControl(nil, frameReset, 3, math.MaxUint32)},
	"stop":            {header{frameStop, 4, 3}, appendControl(nil, frameStop, 3, uint64(transport.Canceled))},
	"ping":            {header{framePing, 8, 0}, appendControl(nil, framePing, 0, 1)},
	"pong":            {header{framePong, 8, 0}, appendControl(nil, framePong, 0, 1)},
	"goaway":          {header{frameGoAway, 15, 0}, goAway(transport.Draining, "maintenance")},
	"goaway-wordless": {header{frameGoAway, 4, 0}, goAway(transport.NoError, "")},
	"goaway-longest":  {header{frameGoAway, 4 + maxReason, 0}, goAway(transport.Internal, strings.Repeat("x", maxReason))},
}

func goldenFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "golden", name))
	require.NoError(t, err)
	return b
}

func TestFramesAreThoseOfTheSpecification(t *testing.T) {
	seen := map[frameType]bool{}
	for name, g := range golden {
		want := goldenFile(t, name+".bin")
		require.Equal(t, want, g.frame, name)
		h, err := parseHeader([headerSize]byte(want))
		require.NoError(t, err, name)
		require.Equal(t, g.header, h, name)
		require.Len(t, want, headerSize+h.length, name)
		seen[h.typ] = true
	}
	require.Len(t, seen, len(frameTypes)-1, "every type of frame has an example")
}

func TestMalformedFramesAreRefused(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "golden", "malformed-*.bin"))
	require.NoError(t, err)
	require.GreaterOrEqual(t, len(files), 15)
	for _, file := range files {
		_, err := parseHeader([headerSize]byte(goldenFile(t, filepath.Base(file))))
		require.Error(t, err, file)
	}
	all, err := filepath.Glob(filepath.Join("testdata", "golden", "*.bin"))
	require.NoError(t, err)
	require.Len(t, all, len(files)+len(golden), "every file is tested: %v", slices.Sorted(maps.Keys(golden)))
}

func TestTheSpecificationNamesTheFramesAndLimitsOfTheCode(t *testing.T) {
	spec, err := os.ReadFile(filepath.Join("..", "wire", "SPEC.md"))
	require.NoError(t, err)
	_, text, found := strings.Cut(string(spec), "\n### Native mux\n")
	require.True(t, found)
	text, _, _ = strings.Cut(text, "\n#")
	var rows [][]string
	for line := range strings.Lines(text) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "    ") && len(fields) > 2 && fields[0] != "type" {
			rows = append(rows, fields)
		}
	}
	require.Len(t, rows, len(frameTypes)-1)
	for i, row := range rows {
		typ := frameType(i + 1)
		require.Equal(t, []string{strings.TrimSpace(row[0]), row[1]}, []string{strconv.Itoa(i + 1), typ.String()})
		switch frameTypes[typ].most {
		case 4:
			require.Equal(t, "u32", row[2], typ)
		case 8:
			require.Equal(t, "u64", row[2], typ)
		case maxData:
			require.Equal(t, []string{"1", "to", strconv.Itoa(maxData), "bytes"}, row[2:6], typ)
		}
	}
	for _, limit := range []string{strconv.Itoa(leastWindow) + " at first", strconv.Itoa(leastRaise) + " more", "128 KiB"} {
		require.Contains(t, text, limit)
	}
	require.Equal(t, 1<<24, largestWindow)
	require.Contains(t, text, "2²⁴")
	require.LessOrEqual(t, largeBatch-headroom, maxBatch)
	require.Equal(t, 128<<10, maxBatch)
}
