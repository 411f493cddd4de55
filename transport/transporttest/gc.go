package transporttest

import (
	"io"
	"runtime"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
)

func gcTests() []test {
	return []test{{"an io.Copy that idles survives collections", idleCopies}}
}

// idleCopies leaves accepted streams with nothing but an io.Copy that waits. A
// finalizer that closes what it takes for forgotten would end it.
func idleCopies(t *trial) {
	t.eachWay(func(c oneWay) {
		const count = 10
		var sources, sinks []transport.Stream
		for range count {
			source, from := t.open(c)
			sink, to := t.open(c)
			// Two streams, since the destination stays reachable in an io.Copy
			// and its source may not.
			go func() {
				_, _ = io.Copy(to, from) // what went wrong shows at the sink
			}()
			sources, sinks = append(sources, source), append(sinks, sink)
		}
		for range 5 { // what one collection frees may free more in the next
			collect(t)
		}
		for i, source := range sources {
			_, err := source.Write([]byte{byte(i)})
			require.NoError(t, err, "%s: stream %d after a collection", c.name, i)
			var got [1]byte
			require.NoError(t, sinks[i].SetReadDeadline(time.Now().Add(t.patience)), c.name)
			_, err = io.ReadFull(sinks[i], got[:])
			require.NoError(t, err, "%s: stream %d after a collection", c.name, i)
			require.EqualValues(t, i, got[0], c.name)
		}
	})
}

// collect runs a collection and the finalizers that it gives rise to.
func collect(t *trial) {
	t.Helper()
	done := make(chan struct{})
	// Not a smaller object: those share memory, and so live longer.
	runtime.SetFinalizer(new([64]byte), func(*[64]byte) { close(done) })
	runtime.GC()
	if !finishes(done, t.patience) {
		t.Fatalf("a finalizer has not run %v after a collection", t.patience)
	}
}
