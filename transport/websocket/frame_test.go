package websocket

import (
	"encoding/hex"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

// The bytes are those of the specification; whoever changes them makes a new
// subprotocol.
func TestFramesHaveTheirBytes(t *testing.T) {
	for want, got := range map[string][]byte{
		"02000000" + "03000000":                                          appendHeader(nil, cmdOpen, 0, 3),
		"02010000" + "02000000":                                          appendHeader(nil, cmdForget, 0, 2),
		"02020300" + "ffeeddcc" + "616263":                               appendData(nil, 0xccddeeff, []byte("abc")),
		"02040800" + "03000000" + "01020304" + "00000400":                appendWindow(nil, 3, windowUpdate{0x04030201, initialWindow}),
		"02020d00" + "00000000" + "01" + "00000000" + "0004000000000000": appendControl(nil, control{kindStreams, 0, 1024}),
		"02020d00" + "00000000" + "02" + "03000000" + "0807060504030201": appendControl(nil, control{kindEnd, 3, 0x0102030405060708}),
		"02020d00" + "00000000" + "03" + "02000000" + "ffffffff00000000": appendControl(nil, control{kindReset, 2, 0xffffffff}),
		"02020d00" + "00000000" + "04" + "04000000" + "0300000000000000": appendControl(nil, control{kindStop, 4, 3}),
		"02050700" + "00000000" + "0d000000" + "627965":                  appendClose(nil, &transport.CloseError{Code: transport.Revoked, Reason: "bye"}),
	} {
		require.Equal(t, want, hex.EncodeToString(got))
	}
}
