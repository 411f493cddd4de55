package websocket

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"io"
	"sync"
)

// A client masks what it sends (RFC 6455, section 5.3). The WebSocket library does
// so through a buffer of 4 KiB, which makes small records for TLS; here a message
// is one frame, masked in one piece and written at once.

// longestHeader is that of a masked frame with a length of 64 bits.
const longestHeader = 14

var maskBuffers = sync.Pool{New: func() any { return new([longestHeader + maxMessage]byte) }}

// writeMasked writes p, of at most maxMessage bytes, as one binary message of a
// client.
func writeMasked(w io.Writer, p []byte) error {
	buf, _ := maskBuffers.Get().(*[longestHeader + maxMessage]byte) // the pool holds nothing else
	defer maskBuffers.Put(buf)
	var key [4]byte
	if _, err := io.ReadFull(rand.Reader, key[:]); err != nil {
		return err
	}
	_, err := w.Write(appendMasked(buf[:0], key, p))
	return err
}

// appendMasked appends a frame that is a whole binary message.
func appendMasked(b []byte, key [4]byte, p []byte) []byte {
	const final, binaryMessage, masked = 0x80, 0x2, 0x80
	b = append(b, final|binaryMessage)
	switch n := len(p); {
	case n < 126:
		b = append(b, masked|byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, masked|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, masked|127), uint64(n))
	}
	b = append(b, key[:]...)
	start := len(b)
	b = append(b, p...)
	mask(b[start:], key)
	return b
}

// mask applies the key to p, from its first byte on.
func mask(p []byte, key [4]byte) {
	var keys [512]byte
	for i := 0; i < len(keys) && i < len(p); i += len(key) {
		copy(keys[i:], key[:])
	}
	for len(p) > 0 {
		p = p[subtle.XORBytes(p, p, keys[:]):]
	}
}
