package mem_test

import (
	"context"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/transport"
	"github.com/outgate/outgate/transport/mem"
)

var errLost = &transport.CloseError{Code: transport.ConnectionLost, Remote: true}

func TestACutGivesOutWhatHadArrivedAndThenTheError(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{})
	opened, accepted := open(t, gateway, agent)
	ended, endedPeer := open(t, gateway, agent)
	for _, s := range []transport.Stream{opened, ended} {
		_, err := s.Write([]byte("arrived"))
		require.NoError(t, err)
	}
	require.NoError(t, ended.CloseWrite())
	agent.Cut()

	for _, m := range []transport.Mux{agent, gateway} {
		require.Equal(t, errLost, context.Cause(m.Context()))
	}
	got, err := io.ReadAll(accepted)
	require.Equal(t, "arrived", string(got))
	require.Equal(t, errLost, err)
	_, err = accepted.Write([]byte("x"))
	require.Equal(t, errLost, err)
	_, err = opened.Read(make([]byte, 1))
	require.Equal(t, errLost, err)

	got, err = io.ReadAll(endedPeer)
	require.NoError(t, err, "the end had arrived as well")
	require.Equal(t, "arrived", string(got))
}

func TestAFrozenConnectionTakesAWindowAndGivesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{Window: 1000})
		opened, accepted := open(t, gateway, agent)
		_, err := opened.Write([]byte("before"))
		require.NoError(t, err)
		gateway.Freeze()

		n, err := opened.Write(make([]byte, 500))
		require.NoError(t, err)
		require.Equal(t, 500, n)
		got := make([]byte, 10)
		n, err = accepted.Read(got)
		require.NoError(t, err)
		require.Equal(t, "before", string(got[:n]), "what had arrived stays readable")

		soon := time.Now().Add(time.Minute)
		require.NoError(t, opened.SetDeadline(soon))
		require.NoError(t, accepted.SetDeadline(soon))
		_, err = accepted.Read(got)
		require.ErrorIs(t, err, os.ErrDeadlineExceeded, "nothing else arrives")
		require.NoError(t, opened.SetWriteDeadline(time.Now().Add(time.Minute)))
		n, err = opened.Write(make([]byte, 500))
		require.ErrorIs(t, err, os.ErrDeadlineExceeded)
		require.Equal(t, 494, n, "what the peer has read since does not free the window")

		late, err := gateway.OpenStream(t.Context())
		require.NoError(t, err)
		_, err = late.Write([]byte("x"))
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err = agent.AcceptStream(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded, "no stream arrives")
		require.NoError(t, agent.Context().Err())
		require.NoError(t, gateway.Context().Err())
	})
}

func TestAfterAThawEverythingArrivesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		agent, gateway := connect(t, &mem.Listener{Window: 100, MaxStreams: 3})
		opened, accepted := open(t, gateway, agent)
		reset, resetPeer := open(t, gateway, agent)
		_, err := opened.Write(make([]byte, 100))
		require.NoError(t, err)
		agent.Freeze()
		_, err = io.ReadFull(accepted, make([]byte, 100))
		require.NoError(t, err)

		want := make([]byte, 250)
		for i := range want {
			want[i] = byte(i)
		}
		wrote := make(chan error, 1)
		go func() {
			for i := 0; i < len(want); i += 50 {
				if _, err := opened.Write(want[i : i+50]); err != nil {
					wrote <- err
					return
				}
			}
			wrote <- opened.CloseWrite()
		}()
		require.NoError(t, reset.Reset(transport.Denied))
		late, err := gateway.OpenStream(t.Context())
		require.NoError(t, err)
		require.NoError(t, late.Close())
		synctest.Wait()
		require.Empty(t, wrote, "the window is full, since the credit cannot come back")

		agent.Thaw()
		got, err := io.ReadAll(accepted)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.NoError(t, <-wrote)
		_, err = resetPeer.Read(make([]byte, 1))
		require.Equal(t, &transport.StreamError{Code: transport.Denied, Remote: true}, err)
		latePeer, err := agent.AcceptStream(t.Context())
		require.NoError(t, err)
		_, err = latePeer.Read(make([]byte, 1))
		require.Equal(t, io.EOF, err)
	})
}

func TestWhatArrivesAfterTheEndIsThrownAway(t *testing.T) {
	agent, gateway := connect(t, &mem.Listener{})
	opened, accepted := open(t, gateway, agent)
	agent.Freeze()
	_, err := opened.Write([]byte("too late"))
	require.NoError(t, err)
	require.NoError(t, accepted.Close())
	_, err = opened.Write([]byte("not known yet"))
	require.NoError(t, err)
	agent.Thaw()
	_, err = opened.Write([]byte("known"))
	require.Equal(t, &transport.StreamError{Code: transport.Canceled, Remote: true}, err)
	got, err := io.ReadAll(opened)
	require.NoError(t, err)
	require.Empty(t, got)
}

func TestAFrozenPeerDoesNotLearnOfACloseBeforeTheThaw(t *testing.T) {
	for _, end := range []string{"Thaw", "Cut"} {
		t.Run(end, func(t *testing.T) {
			agent, gateway := connect(t, &mem.Listener{})
			agent.Freeze()
			require.NoError(t, gateway.CloseWithError(transport.Draining, "bye"))
			require.Equal(t, &transport.CloseError{Code: transport.Draining, Reason: "bye"}, context.Cause(gateway.Context()))
			require.NoError(t, agent.Context().Err())
			want := errLost
			if end == "Thaw" {
				agent.Thaw()
				want = &transport.CloseError{Code: transport.Draining, Reason: "bye", Remote: true}
			} else {
				agent.Cut()
			}
			require.Equal(t, want, context.Cause(agent.Context()))
		})
	}
}

func TestFaultsOfADialerAndAListenerReachTheirLiveConnections(t *testing.T) {
	l := &mem.Listener{}
	one, two := &mem.Dialer{Listener: l, Name: "one"}, &mem.Dialer{Listener: l, Name: "two"}
	dial := func(d *mem.Dialer) transport.Mux {
		m, err := d.Dial(t.Context(), "")
		require.NoError(t, err)
		t.Cleanup(func() { _ = m.CloseWithError(transport.NoError, "") }) // never fails
		return m
	}
	a, b := dial(one), dial(two)
	one.Cut()
	require.Equal(t, errLost, context.Cause(a.Context()))
	require.NoError(t, b.Context().Err(), "another Dialer's connection")

	a = dial(one)
	require.NoError(t, a.Context().Err(), "a connection after the cut")
	l.Cut()
	require.Equal(t, errLost, context.Cause(a.Context()))
	require.Equal(t, errLost, context.Cause(b.Context()))

	a, b = dial(one), dial(two)
	gatewayA, err := l.Accept(t.Context()) // the dead ones are passed over
	require.NoError(t, err)
	gatewayB, err := l.Accept(t.Context())
	require.NoError(t, err)
	two.Freeze()
	require.NoError(t, a.CloseWithError(transport.Draining, ""))
	require.Error(t, gatewayA.Context().Err(), "not frozen")
	require.NoError(t, b.CloseWithError(transport.Draining, ""))
	require.NoError(t, gatewayB.Context().Err(), "frozen")
	l.Thaw()
	require.ErrorIs(t, context.Cause(gatewayB.Context()), transport.Draining)
}
