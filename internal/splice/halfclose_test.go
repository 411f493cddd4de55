package splice_test

import (
	"net"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/internal/splice"
)

// overNetworks runs test with a target behind each kind of connection that can
// half-close.
func overNetworks(t *testing.T, test func(t *testing.T, near, far net.Conn)) {
	for _, network := range []string{"tcp", "unix", "tls"} {
		t.Run(network, func(t *testing.T) {
			if network == "tls" {
				near, far := tlsPair(t)
				test(t, near, far)
				return
			}
			near, far := pair(t, network)
			test(t, near, far)
		})
	}
}

func TestTheCallersEndReachesTheTargetWhoseAnswerStillComesBack(t *testing.T) {
	overNetworks(t, func(t *testing.T, near, far net.Conn) {
		f := start(t.Context(), t, near, far)
		send(t, f.caller, "question")
		closeWrite(t, f.caller)
		receive(t, f.target, "question")
		receiveEnd(t, f.target)
		send(t, f.target, "the answer")
		receive(t, f.caller, "the answer")
		require.NoError(t, f.target.Close())
		receiveEnd(t, f.caller)
		require.Equal(t, splice.Result{ToTarget: 8, FromTarget: 10}, f.result(t))
	})
}

func TestTheTargetsEndReachesTheCallerWhoseRequestStillGoesOn(t *testing.T) {
	overNetworks(t, func(t *testing.T, near, far net.Conn) {
		f := start(t.Context(), t, near, far)
		send(t, f.target, "welcome")
		closeWrite(t, f.target)
		receive(t, f.caller, "welcome")
		receiveEnd(t, f.caller)
		send(t, f.caller, "thank you")
		receive(t, f.target, "thank you")
		require.NoError(t, f.caller.Close())
		receiveEnd(t, f.target)
		require.Equal(t, splice.Result{ToTarget: 9, FromTarget: 7}, f.result(t))
	})
}

func TestACallerThatClosesIsNoFailureWhenTheTargetHadNothingMoreToSay(t *testing.T) {
	overNetworks(t, func(t *testing.T, near, far net.Conn) {
		f := start(t.Context(), t, near, far)
		send(t, f.caller, "goodbye")
		require.NoError(t, f.caller.Close())
		receive(t, f.target, "goodbye")
		receiveEnd(t, f.target)
		require.NoError(t, f.target.Close())
		require.Equal(t, splice.Result{ToTarget: 7}, f.result(t))
	})
}

func TestAnEmptyConversationEndsWell(t *testing.T) {
	overNetworks(t, func(t *testing.T, near, far net.Conn) {
		f := start(t.Context(), t, near, far)
		closeWrite(t, f.target)
		receiveEnd(t, f.caller)
		closeWrite(t, f.caller)
		receiveEnd(t, f.target)
		require.Equal(t, splice.Result{}, f.result(t))
	})
}
