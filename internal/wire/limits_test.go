package wire_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// unchecked encodes v as a peer would that does not know the limits.
func unchecked(t *testing.T, v any) []byte {
	t.Helper()
	body, err := json.Marshal(v)
	require.NoError(t, err)
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)
}

// requireBothRefuse demands that neither side lets a message pass, and that
// nothing of it is written.
func requireBothRefuse(t *testing.T, message any, text string) {
	t.Helper()
	var buf bytes.Buffer
	require.ErrorContains(t, encode(&buf, message), text)
	require.Zero(t, buf.Len())
	_, err := decode(kind(message), bytes.NewReader(unchecked(t, message)))
	require.ErrorContains(t, err, text)
	require.ErrorIs(t, err, wire.ErrMalformed)
}

func TestEveryTextHasALimitThatBothSidesKeep(t *testing.T) {
	for name, test := range map[string]struct {
		limit   int
		message func(text string) any
	}{
		"service":               {128, func(s string) any { return wire.Header{Service: s} }},
		"address":               {1024, func(s string) any { return wire.Header{Service: "tcp", Address: s} }},
		"subject":               {256, func(s string) any { return wire.Header{Service: "tcp", Subject: s} }},
		"request_id":            {128, func(s string) any { return wire.Header{Service: "tcp", RequestID: s} }},
		"traceparent":           {128, func(s string) any { return wire.Header{Service: "tcp", TraceParent: s} }},
		"reason":                {1024, func(s string) any { return wire.Reply{Code: transport.Denied, Reason: s} }},
		"addr":                  {1024, func(s string) any { return wire.Reply{OK: true, Addr: s} }},
		"instance":              {128, func(s string) any { return hello(wire.Hello{Instance: s}) }},
		"software":              {128, func(s string) any { return hello(wire.Hello{Instance: "i", Software: s}) }},
		"features":              {128, func(s string) any { return hello(wire.Hello{Instance: "i", Features: []string{"f", s}}) }},
		"services":              {128, func(s string) any { return hello(wire.Hello{Instance: "i", Services: []string{s}}) }},
		"gateway":               {128, func(s string) any { return welcome(wire.Welcome{Gateway: s}) }},
		"software of a gateway": {128, func(s string) any { return welcome(wire.Welcome{Gateway: "g", Software: s}) }},
		"features of a gateway": {128, func(s string) any { return welcome(wire.Welcome{Gateway: "g", Features: []string{s}}) }},
		"reason of a drain":     {1024, func(s string) any { return wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{Reason: s}} }},
		"policy of an agent":    {128, func(s string) any { return hello(wire.Hello{Instance: "i", Policy: s}) }},
		"digest of a policy":    {128, func(s string) any { return wire.Frame{Type: wire.TypePolicy, Policy: &wire.Policy{Digest: s}} }},
		"type":                  {128, func(s string) any { return wire.Frame{Type: wire.FrameType(s)} }},
	} {
		t.Run(name, func(t *testing.T) {
			field, _, _ := strings.Cut(name, " ")
			longest := test.message(strings.Repeat("é", test.limit/2))
			got, err := decode(kind(longest), bytes.NewReader(encoded(t, longest)))
			require.NoError(t, err)
			require.Equal(t, longest, got)
			requireBothRefuse(t, test.message(strings.Repeat("x", test.limit+1)), field+" has ")
			for _, r := range "\x00\t\n\r\x1b\x7f\u0085\u00a0\u200b\u2028\u202e\ufeff" {
				requireBothRefuse(t, test.message("a"+string(r)), field+" holds the unprintable character")
			}
			var buf bytes.Buffer
			require.ErrorContains(t, encode(&buf, test.message("a\xff")), "UTF-8")
		})
	}
}

func hello(h wire.Hello) wire.Frame     { return wire.Frame{Type: wire.TypeHello, Hello: &h} }
func welcome(w wire.Welcome) wire.Frame { return wire.Frame{Type: wire.TypeWelcome, Welcome: &w} }

func TestEveryOtherFieldHasALimitThatBothSidesKeep(t *testing.T) {
	for text, message := range map[string]any{
		"features has 65 entries":      hello(wire.Hello{Instance: "i", Features: slices.Repeat([]string{"f"}, 65)}),
		"services has 65 entries":      hello(wire.Hello{Instance: "i", Services: slices.Repeat([]string{"s"}, 65)}),
		"without an instance":          hello(wire.Hello{}),
		"without a gateway":            welcome(wire.Welcome{}),
		"without a type":               wire.Frame{},
		"without a service":            wire.Header{Address: "db:1"},
		"deadline_ms is -1":            wire.Header{Service: "tcp", DeadlineMillis: -1},
		"deadline_ms is 9223372036855": wire.Header{Service: "tcp", DeadlineMillis: 9223372036855},
		"within_ms is -1":              wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{WithinMillis: -1}},
		"hop -1":                       wire.Header{Service: "tcp", Hop: -1},
		"hop 2":                        wire.Header{Service: "tcp", Hop: 2},
		"ok true and code 3":           wire.Reply{OK: true, Code: transport.Canceled},
		"ok false and code 0":          wire.Reply{Reason: "no"},
		`"hello" without its body`:     wire.Frame{Type: wire.TypeHello},
		`"welcome" without its body`:   wire.Frame{Type: wire.TypeWelcome},
		`"ping" without its body`:      wire.Frame{Type: wire.TypePing},
		`"pong" without its body`:      wire.Frame{Type: wire.TypePong},
		`"drain" without its body`:     wire.Frame{Type: wire.TypeDrain},
	} {
		t.Run(text, func(t *testing.T) { requireBothRefuse(t, message, text) })
	}
}

func TestAFrameHasOneBody(t *testing.T) {
	both := wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: 1}, Drain: &wire.Drain{}}
	require.ErrorContains(t, wire.WriteFrame(&bytes.Buffer{}, both), "body of another type")
	got, err := wire.ReadFrame(bytes.NewReader(unchecked(t, both)))
	require.NoError(t, err)
	require.Equal(t, wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: 1}}, got)
}

func TestWhatAPeerSendsDoesNotFillTheErrorAboutIt(t *testing.T) {
	long := strings.Repeat("9", 15_000)
	for _, body := range []string{
		`{"service":"tcp","hop":` + long + `}`,
		`{"service":"tcp","hop":"` + long + `"}`,
		`{"service":` + strings.Repeat("[", 15_000) + `}`,
	} {
		_, err := wire.ReadHeader(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)))
		require.ErrorIs(t, err, wire.ErrMalformed)
		require.Less(t, len(err.Error()), 2*wire.MaxReason)
	}
	body := `{"type":"welcome","welcome":{"gateway":"g","time":"` + strings.Repeat("9", 60_000) + `"}}`
	_, err := wire.ReadFrame(bytes.NewReader(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...)))
	require.ErrorIs(t, err, wire.ErrMalformed)
	require.Less(t, len(err.Error()), 2*wire.MaxReason)
}

func TestATooLargeMessageIsATypedError(t *testing.T) {
	_, err := wire.ReadHeader(bytes.NewReader([]byte{0, 0, 0x40, 1}))
	var tooLarge *wire.TooLargeError
	require.ErrorAs(t, err, &tooLarge)
	require.Equal(t, wire.TooLargeError{Size: wire.MaxHeader + 1, Limit: wire.MaxHeader}, *tooLarge)
}

func TestAnyTextBecomesAReason(t *testing.T) {
	for text, want := range map[string]string{
		"":                        "",
		"connection refused":      "connection refused",
		"Zoë says 漢字 😀":           "Zoë says 漢字 😀",
		"two\nlines\tand \x1b[2J": "two lines and  [2J",
		"\u202eturned around":     " turned around",
		"not \xff UTF-8":          "not \uFFFD UTF-8",
		strings.Repeat("x", 1025): strings.Repeat("x", 1024),
		strings.Repeat("漢", 400):  strings.Repeat("漢", 341),
	} {
		got := wire.PrintableReason(text)
		require.Equal(t, want, got)
		require.True(t, utf8.ValidString(got))
		require.NoError(t, wire.WriteReply(&bytes.Buffer{}, wire.Reply{Code: transport.Internal, Reason: got}))
	}
}
