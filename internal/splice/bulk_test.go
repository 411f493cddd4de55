package splice_test

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
)

// sum is what was read: its length, its checksum and how it ended.
type sum struct {
	n    int64
	hash string
	err  error
}

func drain(r io.Reader) sum {
	h := sha256.New()
	n, err := io.Copy(h, struct{ io.Reader }{r})
	return sum{n: n, hash: fmt.Sprintf("%x", h.Sum(nil)), err: err}
}

// source is a reproducible flow of size bytes.
func source(seed byte, size int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), size)
}

func TestManyBytesArriveUnchangedInBothDirectionsAtOnce(t *testing.T) {
	const up, down = 64 << 20, 48<<20 + 12345
	f := startTCP(t.Context(), t)
	sent := make(chan error, 2)
	for _, flow := range []struct {
		to     net.Conn
		seed   byte
		length int64
	}{{f.caller, 1, up}, {f.target, 2, down}} {
		go func() {
			_, err := io.CopyBuffer(struct{ io.Writer }{flow.to}, source(flow.seed, flow.length), make([]byte, 100_000))
			if err == nil {
				err = flow.to.(interface{ CloseWrite() error }).CloseWrite()
			}
			sent <- err
		}()
	}
	atTarget := make(chan sum, 1)
	go func() { atTarget <- drain(f.target) }()
	require.Equal(t, drain(source(2, down)), drain(f.caller))
	require.Equal(t, drain(source(1, up)), <-atTarget)
	require.NoError(t, <-sent)
	require.NoError(t, <-sent)
	require.Equal(t, splice.Result{ToTarget: up, FromTarget: down}, f.result(t))
}
