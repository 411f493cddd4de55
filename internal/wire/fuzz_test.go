package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/wire"
)

// fuzz feeds the decoder of a kind with anything.
func fuzz(f *testing.F, kind string, limit uint32) {
	for name := range messages {
		if kindOf(name) == kind {
			f.Add(vector(f, name))
		}
	}
	for name := range future {
		if kindOf(name) == kind {
			f.Add(vector(f, name))
		}
	}
	for name := range malformed {
		if kindOf(name) == kind {
			f.Add(vector(f, name))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		message, err := decode(kind, r)
		if err != nil {
			requireHonestError(t, data, limit, err)
			return
		}
		size := int(binary.BigEndian.Uint32(data))
		require.Equal(t, len(data)-4-size, r.Len(), "bytes left")
		again, err := decode(kind, iotest.OneByteReader(bytes.NewReader(data)))
		require.NoError(t, err)
		require.Equal(t, message, again, "read byte by byte")

		// What one side understands it can also say, and the other understands it.
		first := encoded(t, message)
		again, err = decode(kind, bytes.NewReader(first))
		require.NoError(t, err)
		require.Equal(t, string(first), string(encoded(t, again)))
	})
}

// requireHonestError demands an end only where data ends and ErrMalformed
// everywhere else.
func requireHonestError(t *testing.T, data []byte, limit uint32, err error) {
	t.Helper()
	complete := len(data) >= 4 && (binary.BigEndian.Uint32(data) > limit || len(data)-4 >= int(binary.BigEndian.Uint32(data)))
	switch {
	case len(data) == 0:
		require.Equal(t, io.EOF, err)
	case !complete:
		require.Equal(t, io.ErrUnexpectedEOF, err)
	default:
		require.ErrorIs(t, err, wire.ErrMalformed)
		require.False(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "a bad message is not an end")
	}
}

func FuzzReadFrame(f *testing.F)  { fuzz(f, "frame", wire.MaxControl) }
func FuzzReadHeader(f *testing.F) { fuzz(f, "header", wire.MaxHeader) }
func FuzzReadReply(f *testing.F)  { fuzz(f, "reply", wire.MaxHeader) }
