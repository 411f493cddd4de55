package wire_test

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

var update = flag.Bool("update", false, "write the golden vectors of this version anew; fit for new messages only")

const golden = "testdata/golden"

// messages are the vectors of this version. The first part of a name says how to
// decode it.
var messages = map[string]any{
	"frame/hello": wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{
		Instance: "5QK2VYD3HNRU7ZC4",
		Software: "example-agent/1.4.0",
		Features: []string{"example"},
		Services: []string{"http", "tcp", "example.com/events"},
	}},
	"frame/hello-shortest": wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{Instance: "i"}},
	"frame/hello-policy": wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{
		Instance: "i", Policy: "sha256:dd72eb3dc06f6ea4958bd5ec55816a76abe73e8c636e6d2d28af8b23706927c0",
	}},
	"frame/policy": wire.Frame{Type: wire.TypePolicy, Policy: &wire.Policy{
		Digest: "sha256:dd72eb3dc06f6ea4958bd5ec55816a76abe73e8c636e6d2d28af8b23706927c0",
	}},
	"frame/policy-unknown": wire.Frame{Type: wire.TypePolicy, Policy: &wire.Policy{}},
	"frame/welcome": wire.Frame{Type: wire.TypeWelcome, Welcome: &wire.Welcome{
		Gateway:  "gateway-1",
		Software: "example-gateway/2.0.1",
		Features: []string{"example"},
		Time:     time.Date(2026, 1, 2, 3, 4, 5, 678_000_000, time.UTC),
	}},
	"frame/ping":         wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: 7}},
	"frame/ping-first":   wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{}},
	"frame/pong-largest": wire.Frame{Type: wire.TypePong, Pong: &wire.Ping{Seq: 1<<64 - 1}},
	"frame/drain":        wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{Reason: "restart <soon> & \"well\"", WithinMillis: 5000}},
	"frame/drain-empty":  wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{}},
	"header/tcp": wire.Header{
		Service:        "tcp",
		Address:        "db.internal:5432",
		Subject:        "Zoë <zoe@example.com>",
		RequestID:      "01JGKQ2M5T",
		TraceParent:    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		DeadlineMillis: 15000,
		Hop:            1,
	},
	"header/shortest": wire.Header{Service: "example.com/events"},
	"header/unix":     wire.Header{Service: "unix", Address: "/run/db server.sock", DeadlineMillis: 9223372036854},
	"reply/ok":        wire.Reply{OK: true, Addr: "10.0.0.7:5432"},
	"reply/ok-empty":  wire.Reply{OK: true},
	"reply/denied":    wire.Reply{Code: transport.Denied, Reason: "db.internal:5432 is not allowed"},
	"reply/last-code": wire.Reply{Code: transport.TargetReset},
}

// future are vectors of a later version, with what this version understands.
var future = map[string]any{
	"frame/future-unknown-type": wire.Frame{Type: "config"},
	"frame/future-unknown-fields": wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{
		Instance: "i-2", Features: []string{"compress", "resume"},
	}},
	"frame/future-other-bodies":    wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: 9}},
	"header/future-unknown-fields": wire.Header{Service: "tcp", Address: "db.internal:5432"},
	"reply/future-unknown-code":    wire.Reply{Code: 4242, Reason: "the tide is out"},
	"reply/future-unknown-fields":  wire.Reply{OK: true, Addr: "10.0.0.7:5432"},
	"reply/future-largest-code":    wire.Reply{Code: 1<<32 - 1},
}

// malformed are vectors that are refused, with a part of the error. Those that
// are cut are not malformed as far as they go.
var malformed = map[string]string{
	"frame/malformed-too-long":                "65537 bytes exceeds the limit of 65536",
	"frame/malformed-longest-length":          "exceeds the limit of 65536",
	"frame/malformed-cut-in-length":           "unexpected EOF",
	"frame/malformed-cut-in-body":             "unexpected EOF",
	"frame/malformed-empty":                   "unexpected end of JSON",
	"frame/malformed-trailing-garbage":        "after top-level value",
	"frame/malformed-not-an-object":           "cannot unmarshal array",
	"frame/malformed-null":                    "without a type",
	"frame/malformed-no-type":                 "without a type",
	"frame/malformed-no-body":                 `"ping" without its body`,
	"frame/malformed-null-body":               `"ping" without its body`,
	"frame/malformed-type-not-text":           "cannot unmarshal number",
	"frame/malformed-type-with-newline":       "type holds the unprintable character U+000A",
	"frame/malformed-type-too-long":           "type has 129 bytes",
	"frame/malformed-seq-negative":            "cannot unmarshal number -1",
	"frame/malformed-seq-too-large":           "cannot unmarshal number",
	"frame/malformed-seq-fraction":            "cannot unmarshal number 1.5",
	"frame/malformed-hello-without-instance":  "hello without an instance",
	"frame/malformed-hello-feature-not-text":  "cannot unmarshal number",
	"frame/malformed-hello-too-many-features": "features has 65 entries",
	"frame/malformed-hello-escape-sequence":   "software holds the unprintable character U+001B",
	"frame/malformed-hello-policy-too-long":   "policy has 129 bytes",
	"frame/malformed-policy-without-body":     `"policy" without its body`,
	"frame/malformed-policy-with-newline":     "digest holds the unprintable character U+000A",
	"frame/malformed-welcome-without-gateway": "welcome without a gateway",
	"frame/malformed-welcome-time":            "parsing time",
	"frame/malformed-drain-negative":          "within_ms is -1",
	"frame/malformed-drain-too-long":          "within_ms is 9223372036855",
	"frame/malformed-not-utf8":                "not UTF-8",

	"header/malformed-too-long":              "16385 bytes exceeds the limit of 16384",
	"header/malformed-cut-in-length":         "unexpected EOF",
	"header/malformed-cut-in-body":           "unexpected EOF",
	"header/malformed-trailing-garbage":      "after top-level value",
	"header/malformed-no-service":            "without a service",
	"header/malformed-service-not-text":      "cannot unmarshal array",
	"header/malformed-address-with-nul":      "address holds the unprintable character U+0000",
	"header/malformed-subject-with-newline":  "subject holds the unprintable character U+000A",
	"header/malformed-subject-turned-around": "subject holds the unprintable character U+202E",
	"header/malformed-address-too-long":      "address has 1025 bytes",
	"header/malformed-deadline-negative":     "deadline_ms is -1",
	"header/malformed-deadline-too-long":     "deadline_ms is 9223372036855",
	"header/malformed-deadline-text":         "cannot unmarshal string",
	"header/malformed-hop-2":                 "hop 2 is not 0 to 1",
	"header/malformed-hop-negative":          "hop -1 is not 0 to 1",
	"header/malformed-not-utf8":              "not UTF-8",

	"reply/malformed-ok-with-code":        "reply with ok true and code 4",
	"reply/malformed-neither-ok-nor-code": "reply with ok false and code 0",
	"reply/malformed-null":                "reply with ok false and code 0",
	"reply/malformed-code-negative":       "cannot unmarshal number -4",
	"reply/malformed-code-too-large":      "cannot unmarshal number 4294967296",
	"reply/malformed-code-text":           "cannot unmarshal string",
	"reply/malformed-ok-text":             "cannot unmarshal string",
	"reply/malformed-reason-with-newline": "reason holds the unprintable character U+000D",
	"reply/malformed-reason-too-long":     "reason has 1025 bytes",
	"reply/malformed-too-long":            "16385 bytes exceeds the limit of 16384",
	"reply/malformed-cut-in-length":       "unexpected EOF",
	"reply/malformed-cut-in-body":         "unexpected EOF",
}

// decode reads one message of a kind: "frame", "header" or "reply".
func decode(kind string, r io.Reader) (any, error) {
	switch kind {
	case "frame":
		return wire.ReadFrame(r)
	case "header":
		return wire.ReadHeader(r)
	case "reply":
		return wire.ReadReply(r)
	}
	return nil, fmt.Errorf("no kind of message is called %q", kind)
}

// encode writes one message.
func encode(w io.Writer, message any) error {
	switch m := message.(type) {
	case wire.Frame:
		return wire.WriteFrame(w, m)
	case wire.Header:
		return wire.WriteHeader(w, m)
	case wire.Reply:
		return wire.WriteReply(w, m)
	}
	return fmt.Errorf("%T is no message", message)
}

func kindOf(name string) string {
	kind, _, _ := strings.Cut(name, "/")
	return kind
}

func vector(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(golden, filepath.FromSlash(name)+".bin"))
	require.NoError(t, err)
	return data
}

func encoded(t testing.TB, message any) []byte {
	t.Helper()
	var buf bytes.Buffer
	require.NoError(t, encode(&buf, message))
	return buf.Bytes()
}

func TestGoldenVectorsDecodeAndEncodeToTheSameBytes(t *testing.T) {
	for name, message := range messages {
		t.Run(name, func(t *testing.T) {
			if *update {
				require.NoError(t, os.WriteFile(filepath.Join(golden, name+".bin"), encoded(t, message), 0o644))
			}
			data := vector(t, name)
			got, err := decode(kindOf(name), bytes.NewReader(data))
			require.NoError(t, err)
			require.Equal(t, message, got)
			require.Equal(t, string(data), string(encoded(t, message)))
		})
	}
}

func TestMessagesOfALaterVersionAreUnderstood(t *testing.T) {
	for name, message := range future {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(vector(t, name))
			got, err := decode(kindOf(name), r)
			require.NoError(t, err)
			require.Equal(t, message, got)
			require.Zero(t, r.Len(), "read to the end")
		})
	}
}

func TestMalformedVectorsAreRefused(t *testing.T) {
	for name, text := range malformed {
		t.Run(name, func(t *testing.T) {
			got, err := decode(kindOf(name), bytes.NewReader(vector(t, name)))
			require.ErrorContains(t, err, text)
			require.Zero(t, got)
			if strings.Contains(name, "-cut-") {
				require.Equal(t, io.ErrUnexpectedEOF, err)
			} else {
				require.ErrorIs(t, err, wire.ErrMalformed)
			}
		})
	}
}

func TestEveryGoldenVectorIsTested(t *testing.T) {
	err := filepath.WalkDir(golden, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(golden, path)
		require.NoError(t, err)
		name := strings.TrimSuffix(filepath.ToSlash(rel), ".bin")
		_, now := messages[name]
		_, later := future[name]
		_, bad := malformed[name]
		require.True(t, now || later || bad, "no test reads %s", path)
		return nil
	})
	require.NoError(t, err)
}
