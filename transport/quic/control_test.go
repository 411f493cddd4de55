package quic

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func TestAGoodbyeIsReadAsItWasWritten(t *testing.T) {
	for _, reason := range []string{"", "restart", strings.Repeat("x", maxReason)} {
		b := appendGoodbye(nil, transport.Draining, reason)
		r := bytes.NewReader(b)
		kind, err := readType(r)
		require.NoError(t, err)
		require.EqualValues(t, messageGoodbye, kind)
		got, err := readGoodbye(r)
		require.NoError(t, err)
		assert.Equal(t, &transport.CloseError{Code: transport.Draining, Reason: reason, Remote: true}, got)
		assert.Zero(t, r.Len())
	}
}

// FuzzReadGoodbye feeds a peer's goodbye.
func FuzzReadGoodbye(f *testing.F) {
	f.Add([]byte{0, 0, 0, 11, 7, 'r', 'e', 's', 't', 'a', 'r', 't'})
	f.Add([]byte{0, 0, 0, 0, 255})
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 3, 'a', 0xff, 'b'})
	f.Add([]byte{0, 0})
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		goodbye, err := readGoodbye(bytes.NewReader(b))
		if err != nil {
			var broken protocolError
			require.True(t, errors.As(err, &broken) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF), "%v", err)
			require.Nil(t, goodbye)
			return
		}
		require.LessOrEqual(t, len(goodbye.Reason), maxReason)
		require.True(t, utf8.ValidString(goodbye.Reason))
		require.True(t, goodbye.Remote)
		if utf8.Valid(b[5 : 5+int(b[4])]) {
			again := appendGoodbye(nil, goodbye.Code, goodbye.Reason)
			require.Equal(t, b[:len(again)-1], again[1:])
		}
	})
}
