package wire_test

import (
	"bytes"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/wire"
	"github.com/outgate/outgate/transport"
)

// generator makes valid messages of all sizes.
type generator struct{ *rand.Rand }

// alphabet has what JSON may escape and characters of every length.
var alphabet = []rune(`abcXYZ019 "\/<>&'{}[]:,` + "éжß漢字😀\uFFFD")

// text returns text of at most limit bytes, often of exactly as many.
func (g generator) text(least, limit int) string {
	if g.IntN(3) == 0 {
		limit = least + g.IntN(limit-least+1)
	}
	var b strings.Builder
	for b.Len() < limit {
		if r := alphabet[g.IntN(len(alphabet))]; b.Len()+len(string(r)) <= limit {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func (g generator) list() []string {
	var list []string
	for range g.IntN(3) * g.IntN(33) {
		list = append(list, g.text(0, 128))
	}
	return list
}

func (g generator) millis() int64 {
	return []int64{0, 1, g.Int64N(100_000), math.MaxInt64 / 1_000_000}[g.IntN(4)]
}

func (g generator) message() any {
	switch g.IntN(8) {
	case 0:
		return wire.Header{
			Service:        g.text(1, wire.MaxService),
			Address:        g.text(0, wire.MaxAddress),
			Subject:        g.text(0, wire.MaxSubject),
			RequestID:      g.text(0, wire.MaxRequestID),
			TraceParent:    g.text(0, wire.MaxTraceParent),
			DeadlineMillis: g.millis(),
			Hop:            g.IntN(wire.MaxHop + 1),
		}
	case 1:
		return wire.Reply{OK: true, Reason: g.text(0, wire.MaxReason), Addr: g.text(0, wire.MaxAddress)}
	case 2:
		return wire.Reply{Code: transport.Code(1 + g.Uint32N(math.MaxUint32)), Reason: g.text(0, wire.MaxReason)}
	case 3:
		return wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{
			Instance: g.text(1, 128), Software: g.text(0, 128), Features: g.list(), Services: g.list(), Policy: g.text(0, 128),
		}}
	case 4:
		return wire.Frame{Type: wire.TypeWelcome, Welcome: &wire.Welcome{
			Gateway: g.text(1, 128), Software: g.text(0, 128), Features: g.list(),
			Time: time.Unix(g.Int64N(1<<36), g.Int64N(1e9)).UTC(),
		}}
	case 5:
		if g.IntN(2) == 0 {
			return wire.Frame{Type: wire.TypePing, Ping: &wire.Ping{Seq: g.Uint64()}}
		}
		return wire.Frame{Type: wire.TypePong, Pong: &wire.Ping{Seq: g.Uint64()}}
	case 6:
		return wire.Frame{Type: wire.TypePolicy, Policy: &wire.Policy{Digest: g.text(0, 128)}}
	default:
		return wire.Frame{Type: wire.TypeDrain, Drain: &wire.Drain{Reason: g.text(0, wire.MaxReason), WithinMillis: g.millis()}}
	}
}

func kind(message any) string {
	switch message.(type) {
	case wire.Frame:
		return "frame"
	case wire.Header:
		return "header"
	default:
		return "reply"
	}
}

func TestWhatIsWrittenIsReadBackAndNotAByteMore(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := generator{rand.New(rand.NewPCG(seed, 0))}
	readers := map[string]func(io.Reader) io.Reader{
		"at once":      func(r io.Reader) io.Reader { return r },
		"byte by byte": iotest.OneByteReader,
		"half by half": iotest.HalfReader,
	}
	for range 500 {
		message := g.message()
		data := encoded(t, message)
		for name, slow := range readers {
			r := bytes.NewReader(append(bytes.Clone(data), "what follows"...))
			got, err := decode(kind(message), slow(r))
			require.NoError(t, err, name)
			require.Equal(t, message, got, name)
			require.Equal(t, len("what follows"), r.Len(), name)
		}
		got, err := decode(kind(message), iotest.DataErrReader(bytes.NewReader(data)))
		require.NoError(t, err, "the end comes with the last byte")
		require.Equal(t, message, got)
	}
}

func TestTheLargestMessagesFit(t *testing.T) {
	full := func(n int) string { return strings.Repeat(`"`, n) } // two bytes in JSON
	list := make([]string, 64)
	for i := range list {
		list[i] = full(128)
	}
	for _, message := range []any{
		wire.Frame{Type: wire.TypeHello, Hello: &wire.Hello{Instance: full(128), Software: full(128), Features: list, Services: list, Policy: full(128)}},
		wire.Header{Service: full(128), Address: full(1024), Subject: full(256), RequestID: full(128), TraceParent: full(128), Hop: 1},
		wire.Reply{Code: math.MaxUint32, Reason: full(1024), Addr: full(1024)},
	} {
		got, err := decode(kind(message), bytes.NewReader(encoded(t, message)))
		require.NoError(t, err)
		require.Equal(t, message, got)
	}
}

func TestAMessageCutAnywhereIsNotTakenForAnother(t *testing.T) {
	for name := range messages {
		data := vector(t, name)
		for n := range data {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			got, err := decode(kindOf(name), bytes.NewReader(data[:n]))
			require.Equal(t, want, err, "%s cut after %d bytes", name, n)
			require.Zero(t, got)
		}
	}
}

func TestAnErrorOfTheReaderIsReturned(t *testing.T) {
	broken := errors.New("broken")
	data := vector(t, "header/tcp")
	for _, n := range []int{0, 2, 4, 10} {
		_, err := wire.ReadHeader(io.MultiReader(bytes.NewReader(data[:n]), iotest.ErrReader(broken)))
		require.ErrorIs(t, err, broken)
		require.NotErrorIs(t, err, wire.ErrMalformed)
	}
}

// counter counts the calls of Write, and fails them if err is set.
type counter struct {
	calls, bytes int
	err          error
}

func (c *counter) Write(p []byte) (int, error) {
	c.calls++
	c.bytes += len(p)
	return len(p), c.err
}

func TestAMessageIsOneWrite(t *testing.T) {
	for name, message := range messages {
		var c counter
		require.NoError(t, encode(&c, message))
		require.Equal(t, counter{calls: 1, bytes: len(vector(t, name))}, c)
	}
	c := counter{err: errors.New("broken")}
	require.ErrorIs(t, encode(&c, wire.Header{Service: "tcp"}), c.err)
}
