//go:build linux

package netlab

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/testnet"
)

func namespaces(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("ip", "netns", "list").Output()
	require.NoError(t, err)
	return string(out)
}

func TestALabLeavesNothingBehind(t *testing.T) {
	t.Parallel()
	var host *testnet.Host
	var forgotten *exec.Cmd
	t.Run("a test that forgets a process", func(t *testing.T) {
		host = newLab(t).Host(t)
		forgotten = host.Command(t.Context(), "sleep", "1000")
		forgotten.Cancel = func() error { return nil } // the lab has to end it
		require.NoError(t, forgotten.Start())
		require.Contains(t, namespaces(t), host.Namespace())
	})
	if host == nil { // the subtest was skipped, and said why
		return
	}
	require.EqualError(t, forgotten.Wait(), "signal: killed")
	require.NotContains(t, namespaces(t), host.Namespace())
}

func TestALabSweepsWhatAKilledProcessLeft(t *testing.T) {
	t.Parallel()
	newLab(t)
	gone := exec.Command("true")
	require.NoError(t, gone.Run())
	left := fmt.Sprintf("og-%d-left", gone.Process.Pid)
	require.NoError(t, exec.Command("ip", "netns", "add", left).Run())
	newLab(t)
	require.NotContains(t, namespaces(t), left)
}

func TestTheRouterDoesWhatItIsTold(t *testing.T) {
	t.Parallel()
	lab := newLab(t)
	a, b := lab.Host(t), lab.Host(t)
	reaches := func() bool { return answers(t, a, b, 20*time.Second) }
	silent := func() bool { return !answers(t, a, b, time.Second) }
	require.True(t, reaches())
	for _, f := range []testnet.Filter{{DropTo: true}, {DropFrom: true}, {DropTo: true, DropFrom: true}, {MTU: 20}} {
		require.NoError(t, b.Filter(f))
		require.True(t, silent(), "%+v", f)
	}
	require.NoError(t, b.Filter(testnet.Filter{}))
	require.True(t, reaches())
	require.NoError(t, b.Unplug(true))
	require.True(t, silent())
	require.NoError(t, b.Unplug(false))
	require.True(t, reaches())
	old := b.Addr
	require.NoError(t, b.Move())
	require.NotEqual(t, old, b.Addr)
	require.True(t, reaches())
}

// answers reports whether b is asked and heard: it refuses at once, for nobody listens there.
func answers(t *testing.T, a, b *testnet.Host, within time.Duration) bool {
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	connect := fmt.Sprintf("exec 3<>/dev/tcp/%s/9", b.Addr)
	out, _ := a.Command(ctx, "bash", "-c", connect).CombinedOutput()
	return strings.Contains(string(out), "refused")
}

func TestTunnelsCrossAWireThatReordersAndLoses(t *testing.T) {
	onEachCarrier(t, func(t *testing.T, c carrier) {
		s := newScene(t, c, sceneConfig{agents: 1, wire: &testnet.Conditions{
			Delay: 20 * time.Millisecond, Jitter: 2 * time.Millisecond, Reorder: 0.02, Loss: 0.01,
		}})
		began := time.Now()
		require.NoError(t, s.transfer(s.agents[0], flow{Size: 128 << 10, Chunk: 16 << 10}, time.Minute))
		require.Greater(t, time.Since(began), 80*time.Millisecond, "to open and to transfer takes two round trips at least")
	})
}
