package quic

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"github.com/outgate/outgate/transport"
)

// Each side may open one unidirectional stream, the control stream. On it go
// messages of one type byte and a body:
//
//	ready    1                                       gateway only, first
//	goodbye  2  code:uint32 length:uint8 reason      last
//
// ready tells the agent that its certificate was verified: in TLS 1.3 the
// client's handshake is complete before the server has looked at it. goodbye
// announces the end of the connection, so that the peer can read what has
// arrived before the connection goes away and its buffers with it.
const (
	messageReady   = 1
	messageGoodbye = 2

	maxReason = 120 // bytes; transport.Mux allows as many
)

// protocolError says what the peer got wrong.
type protocolError string

func (e protocolError) Error() string { return "quic: peer broke the protocol: " + string(e) }

// appendGoodbye encodes a goodbye. The reason is not longer than maxReason.
func appendGoodbye(b []byte, code transport.Code, reason string) []byte {
	b = append(b, messageGoodbye)
	b = binary.BigEndian.AppendUint32(b, uint32(code))
	b = append(b, byte(len(reason)))
	return append(b, reason...)
}

// readType reads the type of the next message. It returns io.EOF when the peer
// ended the stream.
func readType(r io.Reader) (byte, error) {
	var b [1]byte
	_, err := io.ReadFull(r, b[:])
	return b[0], err
}

// readGoodbye reads the body of a goodbye.
func readGoodbye(r io.Reader) (*transport.CloseError, error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, fmt.Errorf("quic: goodbye: %w", err)
	}
	length := int(head[4])
	if length > maxReason {
		return nil, protocolError("the reason of a goodbye is too long")
	}
	reason := make([]byte, length)
	if _, err := io.ReadFull(r, reason); err != nil {
		return nil, fmt.Errorf("quic: goodbye: %w", err)
	}
	return &transport.CloseError{
		Code:   transport.Code(binary.BigEndian.Uint32(head[:4])),
		Reason: cutReason(string(reason)),
		Remote: true,
	}, nil
}

// cutReason makes s fit for the wire and for logs.
func cutReason(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "")
}
