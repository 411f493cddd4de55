package transporttest

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/nettest"
)

// testNetConn runs the net.Conn suite on streams of either side. It needs a
// *testing.T, so it cannot be tried out and no skip exists for it.
func testNetConn(t *testing.T, h Harness) {
	for _, way := range []func(Pair) oneWay{openedByDialed, openedByAccepted} {
		t.Run(way(Pair{}).name, func(t *testing.T) {
			nettest.TestConn(t, func() (net.Conn, net.Conn, func(), error) { return streamPipe(t, h, way) })
		})
	}
}

// streamPipe makes a nettest pipe of a stream on a connection of its own.
func streamPipe(t *testing.T, h Harness, way func(Pair) oneWay) (c1, c2 net.Conn, stop func(), err error) {
	trial := newTrial(t, h)
	// In a goroutine, since what fails here may end it.
	<-trial.spawn(func() { c1, c2 = trial.open(way(trial.connect())) })
	if failures := trial.failures; len(failures) > 0 || c1 == nil || c2 == nil {
		trial.finish()
		return nil, nil, nil, errors.New("no stream: " + strings.Join(failures, "\n"))
	}
	// nettest gives up after a minute for each of its tests, too long for eleven
	// of them. The end of the connection ends what hangs.
	watchdog := time.AfterFunc(bound, func() {
		t.Errorf("promise broken: streams pass the net.Conn suite\nhangs: no end after %v\n%s", bound, stacks())
		trial.closeMuxes()
	})
	return c1, c2, func() {
		watchdog.Stop()
		_ = c1.Close() // some tests have closed them
		_ = c2.Close()
		trial.finish()
		if len(trial.failures) > 0 {
			t.Errorf("the connection did not end:\n%s", strings.Join(trial.failures, "\n"))
		}
	}, nil
}
