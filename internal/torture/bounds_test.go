//go:build linux

package torture

import (
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testca"
	"github.com/outgate/outgate/tunnel"
)

func TestStalledStreamsHoldBoundedMemory(t *testing.T) {
	beside(t)
	const (
		sessions = 20
		bound    = 384 << 20 // of each process
	)
	onEachCarrier(t, func(t *testing.T, c carrier) {
		streams := scaled(t, 10_000, 200, fmt.Sprintf("stalled streams in %d sessions", sessions))
		ca := testca.New(t)
		identity, err := credentialsOf(ca.Gateway(), ca.Pool())
		require.NoError(t, err)
		gateway := spawn(t, order{Role: "gateway", Carrier: c.name, Opens: -1, Identities: []credentials{identity}})
		first, err := gateway.answer()
		require.NoError(t, err)
		url := "https://" + first.Addr

		o := order{Role: "agents", Carrier: c.name, URL: url}
		for i := range sessions {
			identity, err := credentialsOf(ca.Agent(fmt.Sprintf("agent-%d", i)), ca.Pool())
			require.NoError(t, err)
			o.Identities = append(o.Identities, identity)
		}
		agents := spawn(t, o)
		_, err = agents.answer()
		require.NoError(t, err)
		healthy, _ := runAgent(t, c, ca.Agent("healthy"), url)

		_, err = agents.ask(question{Stall: streams / sessions})
		require.NoError(t, err)
		ofGateway, ofAgents := atRest(t, gateway), atRest(t, agents)
		t.Logf("gateway: %d MiB, peak %d MiB, %d goroutines; agents: %d MiB, peak %d MiB, %d goroutines; %d MiB under way",
			ofGateway.RSS>>20, ofGateway.Peak>>20, ofGateway.Goroutines, ofAgents.RSS>>20, ofAgents.Peak>>20, ofAgents.Goroutines,
			(ofGateway.Moved+ofAgents.Moved)>>20)

		s, err := healthy.Open(soon(t), tunnel.Target{Service: echoService})
		require.NoError(t, err)
		require.NoError(t, s.SetDeadline(time.Now().Add(patience)))
		var took []time.Duration
		for range 100 {
			began := time.Now()
			_, err = s.Write([]byte("hello"))
			require.NoError(t, err)
			_, err = io.ReadFull(s, make([]byte, 5))
			require.NoError(t, err)
			took = append(took, time.Since(began))
		}
		t.Logf("healthy stream: round trip p50 %v, p99 %v", quantile(took, 0.5), quantile(took, 0.99))
		require.NoError(t, s.Close())

		limit := int64(bound)
		if c.exceeds != "" {
			// Half of the streams are full on each side, and a collection may wait
			// until the heap has doubled.
			limit = bound + int64(streams*c.window)
			t.Logf("the bound is %d MiB instead of %d: %s", limit>>20, bound>>20, c.exceeds)
		}
		require.LessOrEqual(t, ofGateway.Peak, limit, "gateway")
		require.LessOrEqual(t, ofAgents.Peak, limit, "agents")
	})
}

// spawn starts a child that ends with the test.
func spawn(t *testing.T, o order) *child {
	t.Helper()
	c, err := start(t.Context(), o)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = c.kill()
	})
	return c
}

// atRest waits until a child's streams move no more.
func atRest(t *testing.T, c *child) report {
	t.Helper()
	moved := int64(-1)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		r, err := c.ask(question{})
		require.NoError(t, err)
		if r.Moved == moved {
			return r
		}
		moved = r.Moved
		time.Sleep(500 * time.Millisecond)
	}
	t.Fatal("the streams that nobody reads do not come to rest")
	return report{}
}
