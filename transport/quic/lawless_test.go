package quic_test

import (
	"reflect"
	"testing"
	"unsafe"

	quicgo "github.com/quic-go/quic-go"
	"github.com/stretchr/testify/require"
)

// The QUIC library obeys its peer's limits. These helpers make it forget them, for
// a test in which it plays the attacker. They reach into its unexported fields, so
// an upgrade of the library may have to change them.

const noLimit = 1 << 60

// forgetStreamLimit lets conn open streams without credit.
func forgetStreamLimit(t *testing.T, conn *quicgo.Conn) {
	t.Helper()
	set(t, noLimit, conn, "streamsMap", "outgoingBidiStreams", "maxStream")
}

// forgetWindows lets conn send on s without credit.
func forgetWindows(t *testing.T, conn *quicgo.Conn, s *quicgo.Stream) {
	t.Helper()
	set(t, noLimit, conn, "connFlowController", "sendWindow")
	set(t, noLimit, s, "sendStr", "flowController", "sendWindow")
}

// set stores n in the integer that path leads to.
func set(t *testing.T, n int64, from any, path ...string) {
	t.Helper()
	v := reflect.ValueOf(from)
	for _, name := range path {
		v = reflect.Indirect(v).FieldByName(name)
		require.True(t, v.IsValid(), "the QUIC library has no field %s any more", name)
	}
	require.Equal(t, reflect.Int64, v.Kind())
	*(*int64)(unsafe.Pointer(v.UnsafeAddr())) = n
}
