package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"
	"unicode/utf8"
)

// Version is the major version of the protocol. It is part of the ALPN and of
// the WebSocket subprotocol, so peers of different major versions never meet.
//
//	1  the first
const Version = 1

// Limits of one message, in bytes of JSON. A peer that announces more has broken
// the protocol; nothing is allocated for it.
const (
	MaxControl = 64 << 10
	MaxHeader  = 16 << 10
)

const lengthSize = 4

// maxMillis is the longest time in a message; a time.Duration holds no more.
const maxMillis = math.MaxInt64 / int64(time.Millisecond)

// ErrMalformed says that the peer sent something that is not a message.
var ErrMalformed = errors.New("malformed message")

// TooLargeError says that a message exceeds its limit.
type TooLargeError struct{ Size, Limit int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes exceeds the limit of %d", e.Size, e.Limit)
}

// encode returns the length prefix and the JSON of v.
func encode(v any, limit int) ([]byte, error) {
	var buf bytes.Buffer
	buf.Write(make([]byte, lengthSize))
	enc := json.NewEncoder(&buf)
	// The escapes for HTML are six bytes for one: fields within their limits could
	// make a message beyond its own.
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("wire: encode: %w", err)
	}
	buf.Truncate(buf.Len() - 1) // Encode ends a line
	size := buf.Len() - lengthSize
	if size > limit {
		return nil, fmt.Errorf("wire: encode: %w", &TooLargeError{Size: size, Limit: limit})
	}
	binary.BigEndian.PutUint32(buf.Bytes(), uint32(size))
	return buf.Bytes(), nil
}

// writeMessage sends v with one Write, so that a message never shares a record
// with half of another.
func writeMessage(w io.Writer, v any, limit int) error {
	buf, err := encode(v, limit)
	if err != nil {
		return err
	}
	_, err = w.Write(buf)
	return err
}

// readMessage reads one message and no byte beyond it. It returns io.EOF only
// when r ended before the first byte, and io.ErrUnexpectedEOF when r ended later.
func readMessage(r io.Reader, v any, limit int) error {
	var prefix [lengthSize]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return err
	}
	// Compare before converting: on 32-bit machines an int cannot hold every length.
	size := binary.BigEndian.Uint32(prefix[:])
	if size > uint32(limit) {
		return fmt.Errorf("wire: %w: %w", ErrMalformed, &TooLargeError{Size: int(min(size, 1<<31-1)), Limit: limit})
	}
	// The buffer grows with what arrives, not with what was announced.
	var body bytes.Buffer
	if _, err := io.CopyN(&body, r, int64(size)); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	if !utf8.Valid(body.Bytes()) { // the JSON package would mend it
		return fmt.Errorf("wire: %w: not UTF-8", ErrMalformed)
	}
	if err := json.Unmarshal(body.Bytes(), v); err != nil {
		// Its text may quote what the peer sent, at any length.
		return fmt.Errorf("wire: %w: %s", ErrMalformed, PrintableReason(err.Error()))
	}
	return nil
}
