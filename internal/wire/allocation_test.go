package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/wire"
)

// allocated returns how many bytes one call of f allocates.
func allocated(f func()) uint64 {
	const runs = 10
	f()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return (after.TotalAlloc - before.TotalAlloc) / runs
}

func TestALengthThatIsNotDeliveredIsNotAllocated(t *testing.T) {
	for _, kind := range []string{"frame", "header", "reply"} {
		for _, announced := range []uint32{wire.MaxHeader, wire.MaxControl, wire.MaxControl + 1, 1 << 30, 1<<32 - 1} {
			for _, delivered := range []int{0, 1, 500} {
				t.Run(fmt.Sprintf("%s of %d bytes with %d", kind, announced, delivered), func(t *testing.T) {
					data := append(binary.BigEndian.AppendUint32(nil, announced), strings.Repeat(" ", delivered)...)
					got := allocated(func() {
						if _, err := decode(kind, bytes.NewReader(data)); err == nil {
							t.Error("an incomplete message was accepted")
						}
					})
					require.Less(t, got, uint64(4<<10))
				})
			}
		}
	}
}

func TestTheWorstMessageCostsABoundedMultipleOfItsSize(t *testing.T) {
	fill := func(before, unit, last, after string) []byte {
		n := (wire.MaxControl - len(before) - len(last) - len(after)) / len(unit)
		body := before + strings.Repeat(unit, n) + last + after
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
	}
	for name, data := range map[string][]byte{
		"a list of nothing":   fill(`{"type":"hello","hello":{"instance":"i","features":[`, `"",`, `""`, `]}}`),
		"deep nesting":        fill(`{"type":"ping","x":`, `[`, ``, `}`),
		"one field again":     fill(`{"type":"ping"`, `,"ping":{}`, ``, `}`),
		"one text again":      fill(`{"type":"hello","hello":{"instance":"i"`, `,"software":"xxxxxxxxxxxxxxxx"`, ``, `}}`),
		"escapes":             fill(`{"type":"drain","drain":{"reason":"`, `\u0041`, ``, `"}}`),
		"fields nobody knows": fill(`{"type":"ping"`, `,"x":{"y":[]}`, ``, `}`),
	} {
		t.Run(name, func(t *testing.T) {
			got := allocated(func() { _, _ = wire.ReadFrame(io.LimitReader(bytes.NewReader(data), int64(len(data)))) })
			t.Logf("%d bytes for %d", got, len(data))
			require.Less(t, got, uint64(32*wire.MaxControl))
		})
	}
}
