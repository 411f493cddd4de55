package mux

import (
	"encoding/binary"
	"fmt"

	"github.com/outgate/outgate/transport"
)

// A frame is a header and its payload, all numbers big-endian:
//
//	type u8 · length u24 · stream u32 · payload
const headerSize = 8

type frameType byte

// The types of frames. SPEC.md says what they mean.
const (
	frameStreams frameType = 1 + iota
	frameOpen
	frameData
	frameCredit
	frameEnd
	frameReset
	frameStop
	framePing
	framePong
	frameGoAway
)

const (
	maxData   = 64 << 10 // bytes of a DATA frame
	maxReason = 120      // bytes of the reason in a GOAWAY frame
	maxID     = 1<<32 - 1
)

// frameTypes says what a header of each type may look like.
var frameTypes = [...]struct {
	name        string
	least, most int  // length
	stream      bool // about one, or about the connection
}{
	frameStreams: {"STREAMS", 4, 4, false},
	frameOpen:    {"OPEN", 0, 0, true},
	frameData:    {"DATA", 1, maxData, true},
	frameCredit:  {"CREDIT", 8, 8, true},
	frameEnd:     {"END", 8, 8, true},
	frameReset:   {"RESET", 4, 4, true},
	frameStop:    {"STOP", 4, 4, true},
	framePing:    {"PING", 8, 8, false},
	framePong:    {"PONG", 8, 8, false},
	frameGoAway:  {"GOAWAY", 4, 4 + maxReason, false},
}

func (t frameType) String() string { return frameTypes[t].name }

// header is a well-formed header of a frame.
type header struct {
	typ    frameType
	length int
	stream uint32
}

// parseHeader checks what can be known from the header alone.
func parseHeader(b [headerSize]byte) (header, error) {
	first := binary.BigEndian.Uint32(b[:4])
	h := header{frameType(b[0]), int(first & 0xffffff), binary.BigEndian.Uint32(b[4:])}
	if h.typ == 0 || int(h.typ) >= len(frameTypes) {
		return h, fmt.Errorf("unknown frame type %d", h.typ)
	}
	t := &frameTypes[h.typ]
	if h.length < t.least || h.length > t.most {
		return h, fmt.Errorf("%s of %d bytes, expected %d to %d", t.name, h.length, t.least, t.most)
	}
	if t.stream != (h.stream != 0) {
		return h, fmt.Errorf("%s for stream %d", t.name, h.stream)
	}
	return h, nil
}

func appendHeader(b []byte, t frameType, length int, stream uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(t)<<24|uint32(length))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendData(b []byte, stream uint32, p []byte) []byte {
	return append(appendHeader(b, frameData, len(p), stream), p...)
}

// appendControl appends a frame whose payload is one number, or none.
func appendControl(b []byte, t frameType, stream uint32, v uint64) []byte {
	n := frameTypes[t].least
	b = appendHeader(b, t, n, stream)
	switch n {
	case 4:
		b = binary.BigEndian.AppendUint32(b, uint32(v))
	case 8:
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// goAway returns a frame with a reason of at most maxReason bytes.
func goAway(code transport.Code, reason string) []byte {
	b := appendHeader(nil, frameGoAway, 4+len(reason), 0)
	return append(binary.BigEndian.AppendUint32(b, uint32(code)), reason...)
}
