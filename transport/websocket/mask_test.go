package websocket

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	ws "github.com/coder/websocket"
	"github.com/stretchr/testify/require"
)

// The example of RFC 6455, section 5.7, as a binary message.
func TestAMaskedFrameIsThatOfTheRFC(t *testing.T) {
	got := appendMasked(nil, [4]byte{0x37, 0xfa, 0x21, 0x3d}, []byte("Hello"))
	require.Equal(t, []byte{0x82, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}, got)
}

func TestMaskingTwiceChangesNothing(t *testing.T) {
	key := [4]byte{1, 2, 3, 4}
	for n := range 1100 {
		p := bytes.Repeat([]byte("abcdefg"), n/7+1)[:n]
		masked := bytes.Clone(p)
		mask(masked, key)
		for i := range p {
			require.Equal(t, p[i]^key[i%4], masked[i], "byte %d of %d", i, n)
		}
		mask(masked, key)
		require.Equal(t, p, masked)
	}
}

// The library of the other side reads messages of every kind of length, also
// between control frames that its client side writes.
func TestMaskedMessagesAreReadByTheLibrary(t *testing.T) {
	got := make(chan []byte)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := ws.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		c.SetReadLimit(maxMessage)
		for {
			typ, p, err := c.Read(r.Context())
			if err != nil {
				close(got)
				return
			}
			if typ != ws.MessageBinary {
				t.Errorf("a message of type %v", typ)
			}
			got <- p
		}
	}))
	defer s.Close()
	body := &upgraded{RoundTripper: &http.Transport{}}
	c, _, err := ws.Dial(t.Context(), strings.Replace(s.URL, "http", "ws", 1), &ws.DialOptions{HTTPClient: &http.Client{Transport: body}})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.CloseRead(ctx)
	for _, n := range []int{0, 1, 125, 126, 127, 4096, 65535, 65536, maxMessage} {
		p := bytes.Repeat([]byte("0123456789"), n/10+1)[:n]
		require.NoError(t, writeMasked(body.conn, p))
		require.Equal(t, p, <-got)
		require.NoError(t, c.Ping(ctx)) // while the server reads
	}
	require.NoError(t, c.CloseNow())
	<-got
}

// Whatever is masked, a library that knows nothing of this code reads it.
func FuzzMask(f *testing.F) {
	f.Add([]byte("hello"), uint32(0x37fa213d))
	f.Fuzz(func(t *testing.T, p []byte, k uint32) {
		p = p[:min(len(p), maxMessage)]
		key := [4]byte{byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}
		frame := appendMasked(nil, key, p)
		require.LessOrEqual(t, len(frame), len(p)+longestHeader)
		payload := frame[len(frame)-len(p):]
		require.Equal(t, key[:], frame[len(frame)-len(p)-4:len(frame)-len(p)])
		for i := range p {
			if payload[i]^key[i%4] != p[i] {
				t.Fatalf("byte %d", i)
			}
		}
	})
}
