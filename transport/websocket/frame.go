package websocket

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/outgate/outgate/transport"
)

// A frame is that of smux version 2, its numbers little-endian:
//
//	version u8 = 2 · command u8 · length u16 · stream u32 · payload
const (
	smuxVersion = 2
	headerSize  = 8
)

// The commands of smux.
const (
	cmdOpen   byte = iota // SYN: a stream begins
	cmdForget             // FIN: the sender keeps nothing of the stream any more
	cmdData               // PSH
	cmdNop                // NOP
	cmdWindow             // UPD: consumed u32, window u32
	cmdClose              // ours: the connection ends; code u32, reason
)

// Stream 0 is the connection itself, as in HTTP/2. smux numbers its streams from
// 2 and 3, so what is sent here never meets one of them. Each data frame
// of stream 0 holds one control record:
//
//	kind u8 · stream u32 · value u64
const (
	streamControl = 0
	windowSize    = 8
	controlSize   = 13
	codeSize      = 4
)

// The kinds of control records.
const (
	kindStreams byte = 1 + iota // the peer may open value streams, counted from the start of the connection
	kindEnd                     // this direction of the stream is complete after value bytes
	kindReset                   // both directions end with code value
	kindStop                    // nobody reads the other direction any more; its writer gets code value
)

// frameHeader is the header of a frame that is well-formed.
type frameHeader struct {
	command byte
	length  int
	stream  uint32
}

// parseHeader checks what can be known from the header alone.
func parseHeader(b [headerSize]byte) (frameHeader, error) {
	h := frameHeader{command: b[1], length: int(binary.LittleEndian.Uint16(b[2:])), stream: binary.LittleEndian.Uint32(b[4:])}
	if b[0] != smuxVersion {
		return h, fmt.Errorf("frame version %d, expected %d", b[0], smuxVersion)
	}
	least, most := 0, 0
	switch h.command {
	case cmdOpen, cmdForget, cmdNop:
	case cmdData:
		least, most = 1, maxFrame
		if h.stream == streamControl {
			least, most = controlSize, controlSize
		}
	case cmdWindow:
		least, most = windowSize, windowSize
	case cmdClose:
		least, most = codeSize, codeSize+maxCloseReason
	default:
		return h, fmt.Errorf("unknown command %d", h.command)
	}
	if h.length < least || h.length > most {
		return h, fmt.Errorf("command %d with %d bytes, expected %d to %d", h.command, h.length, least, most)
	}
	var possible bool
	switch h.stream {
	case streamControl:
		possible = h.command == cmdData || h.command == cmdNop || h.command == cmdClose
	case 1:
	default:
		possible = h.command != cmdNop && h.command != cmdClose
	}
	if !possible {
		return h, fmt.Errorf("command %d on stream %d", h.command, h.stream)
	}
	return h, nil
}

func appendHeader(b []byte, command byte, length int, stream uint32) []byte {
	b = append(b, smuxVersion, command)
	b = binary.LittleEndian.AppendUint16(b, uint16(length))
	return binary.LittleEndian.AppendUint32(b, stream)
}

func appendData(b []byte, stream uint32, p []byte) []byte {
	return append(appendHeader(b, cmdData, len(p), stream), p...)
}

// windowUpdate says that consumed units of all that was sent are free again,
// and that window units may be under way. Both count as frameCost says, modulo
// 2³².
type windowUpdate struct{ consumed, window uint32 }

func appendWindow(b []byte, stream uint32, u windowUpdate) []byte {
	b = appendHeader(b, cmdWindow, windowSize, stream)
	b = binary.LittleEndian.AppendUint32(b, u.consumed)
	return binary.LittleEndian.AppendUint32(b, u.window)
}

func parseWindow(b [windowSize]byte) windowUpdate {
	return windowUpdate{binary.LittleEndian.Uint32(b[:]), binary.LittleEndian.Uint32(b[4:])}
}

// control is a control record.
type control struct {
	kind   byte
	stream uint32 // 0 for kindStreams
	value  uint64
}

func appendControl(b []byte, c control) []byte {
	b = append(appendHeader(b, cmdData, controlSize, streamControl), c.kind)
	b = binary.LittleEndian.AppendUint32(b, c.stream)
	return binary.LittleEndian.AppendUint64(b, c.value)
}

func parseControl(b [controlSize]byte) (control, error) {
	c := control{b[0], binary.LittleEndian.Uint32(b[1:]), binary.LittleEndian.Uint64(b[5:])}
	switch {
	case c.kind < kindStreams || c.kind > kindStop:
		return c, fmt.Errorf("unknown control record %d", c.kind)
	case (c.kind == kindStreams) != (c.stream == 0) || c.stream == 1:
		return c, fmt.Errorf("control record %d for stream %d", c.kind, c.stream)
	case c.kind >= kindReset && c.value > math.MaxUint32:
		return c, fmt.Errorf("code %d is out of range", c.value)
	}
	return c, nil
}

// appendClose appends the frame that says why a connection ends where a close frame
// of the WebSocket would not be the peer's own word: inside TLS.
func appendClose(b []byte, e *transport.CloseError) []byte {
	reason := cleanReason(e.Reason)
	b = appendHeader(b, cmdClose, codeSize+len(reason), streamControl)
	return append(binary.LittleEndian.AppendUint32(b, uint32(e.Code)), reason...)
}

// parseClose reads the payload of such a frame.
func parseClose(b []byte) *transport.CloseError {
	return &transport.CloseError{
		Code:   transport.Code(binary.LittleEndian.Uint32(b)),
		Reason: cleanReason(string(b[codeSize:])),
		Remote: true,
	}
}
