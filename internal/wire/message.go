package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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

// ErrMalformed says that the peer sent something that is not a message.
var ErrMalformed = errors.New("malformed message")

// TooLargeError says that a message exceeds its limit.
type TooLargeError struct{ Size, Limit int }

func (e *TooLargeError) Error() string {
	return fmt.Sprintf("message of %d bytes exceeds the limit of %d", e.Size, e.Limit)
}

// appendMessage appends the length prefix and the JSON of v to dst.
func appendMessage(dst []byte, v any, limit int) ([]byte, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("wire: encode: %w", err)
	}
	if len(body) > limit {
		return nil, fmt.Errorf("wire: encode: %w", &TooLargeError{Size: len(body), Limit: limit})
	}
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(body)))
	return append(dst, body...), nil
}

// writeMessage sends v with one Write, so that a message never shares a record
// with half of another.
func writeMessage(w io.Writer, v any, limit int) error {
	buf, err := appendMessage(nil, v, limit)
	if err != nil {
		return err
	}
	_, err = w.Write(buf)
	return err
}

// readMessage reads one message and no byte beyond it. It returns io.EOF only
// when r ended before the first byte.
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
	if err := json.Unmarshal(body.Bytes(), v); err != nil {
		return fmt.Errorf("wire: %w: %w", ErrMalformed, err)
	}
	return nil
}
