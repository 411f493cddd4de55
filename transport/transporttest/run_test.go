package transporttest

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/outgate/outgate/transport"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestASkipOfABrokenPromiseIsAllowed(t *testing.T) {
	h := spoiled(onStreams(func(s *faultyStream) {
		s.reset = func(transport.Code) error { return s.Stream.Reset(transport.Internal) }
	}))
	h.Skip.Reset = "this carrier has no codes"
	require.True(t, find(t, h, "Reset").breaks(t, h))
}

func TestASkipThatSkipsNothingIsNoticed(t *testing.T) {
	h := memory()
	h.Skip.Reset = "this carrier had no codes once"
	require.False(t, find(t, h, "Reset").breaks(t, h))
}

func TestEveryPromiseHasItsFieldOfSkip(t *testing.T) {
	fields := reflect.TypeFor[Skip]()
	all := promises(memory())
	require.Len(t, all, fields.NumField())
	for _, p := range all {
		h := memory()
		field := reflect.ValueOf(&h.Skip).Elem().FieldByName(p.name)
		require.True(t, field.IsValid(), p.name)
		field.SetString("a reason")
		require.Equal(t, "a reason", find(t, h, p.name).skip, p.name)
	}
}

func TestAHangIsAFailureThatShowsWhere(t *testing.T) {
	hanging := newTrial(t, memory())
	hanging.bound = 10 * time.Millisecond
	failures := hanging.run(func(t *trial) { whereItHangs(t) })
	require.Len(t, failures, 1)
	require.Contains(t, failures[0], "hangs: no end after 10ms")
	require.Contains(t, failures[0], "whereItHangs")
}

func whereItHangs(t *trial) {
	s := t.openOnly(t.connect().Dialed)
	_, _ = s.Read(make([]byte, 1)) // ends when the trial has given up and closes the connection
}

func TestWhatMovesDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		require.Empty(t, newTrial(t, memory()).run(func(t *trial) {
			work := async(func() error {
				for range 3 { // longer than a wait, and than a test, may stand still
					time.Sleep(3*t.patience - time.Second)
					t.moved.Add(1)
				}
				return nil
			})
			require.NoError(t, waitMoving(t, work, "work"))
		}))
		failures := newTrial(t, memory()).run(func(t *trial) { waitMoving(t, make(chan error), "work") })
		require.Len(t, failures, 1)
		require.Contains(t, failures[0], "nothing has moved for 30s")
	})
}

func TestAFailureOfOneWayEndsTheTest(t *testing.T) {
	var other atomic.Bool
	failures := newTrial(t, memory()).run(func(t *trial) {
		t.eachWay(func(c oneWay) {
			if c.byDialed {
				t.Fatal("one way")
			}
			other.Store(true)
		})
		t.Error("not reached")
	})
	require.Len(t, failures, 1)
	require.Contains(t, failures[0], "one way")
	require.True(t, other.Load())
}

func TestAFailureInAHarnessIsAFailureOfTheTest(t *testing.T) {
	h := Harness{Connect: func(tb testing.TB) Pair {
		tb.Cleanup(func() { tb.Error("and in a cleanup") })
		tb.Fatal("the port is taken")
		return Pair{}
	}}
	failures := newTrial(t, h).run(func(t *trial) {
		t.connect()
		t.Error("not reached")
	})
	require.Len(t, failures, 2)
	require.True(t, strings.HasPrefix(failures[0], "run_test.go:"), failures[0])
	require.Contains(t, failures[0], "the port is taken")
	require.Contains(t, failures[1], "and in a cleanup")
}
