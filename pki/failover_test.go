package pki_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestFailoverAsksTheNextGateway(t *testing.T) {
	a, _ := newAuthority(t)
	busy := &pki.UnavailableError{Status: 503, RetryAfter: time.Minute}
	down := func() *script { return &script{Registrar: a, failures: []error{errRefusedConn, errRefusedConn}} }
	key := newKey(t)
	r := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)}

	t.Run("until one says yes", func(t *testing.T) {
		first, second, third := down(), &script{Registrar: a}, &script{Registrar: a}
		gateways := pki.Failover{first, second, third}
		c, err := gateways.Register(t.Context(), r)
		require.NoError(t, err)
		renewed, err := gateways.Renew(t.Context(), pki.Renewal{Presented: leafOf(t, c), CSR: csrOf(t, newKey(t))})
		require.NoError(t, err)
		require.Equal(t, "edge", renewed.Agent)
		require.Len(t, first.asked, 2)
		require.Len(t, second.asked, 2)
		require.Empty(t, third.asked)
	})
	t.Run("until one refuses", func(t *testing.T) {
		second, third := &script{Registrar: a}, &script{Registrar: a}
		_, err := pki.Failover{down(), second, third}.Register(t.Context(), registration(t))
		requireRefused(t, err)
		require.NotErrorIs(t, err, errRefusedConn)
		require.Empty(t, third.asked)
	})
	t.Run("and tells of each if none can decide", func(t *testing.T) {
		_, err := pki.Failover{down(), &script{failures: []error{busy}}, &script{failures: []error{&pki.PinError{}}}}.Register(t.Context(), r)
		require.ErrorIs(t, err, errRefusedConn)
		require.ErrorIs(t, err, busy)
		var pin *pki.PinError
		require.ErrorAs(t, err, &pin)
		require.ErrorContains(t, err, "none of 3")
	})
	t.Run("one alone speaks for itself", func(t *testing.T) {
		_, err := pki.Failover{&script{failures: []error{busy}}}.Register(t.Context(), r)
		require.Equal(t, busy, err)
	})
	t.Run("of none there is none", func(t *testing.T) {
		_, err := pki.Failover{}.Register(t.Context(), r)
		require.ErrorContains(t, err, "empty")
	})
	t.Run("but not after the end of its caller", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		second := &script{Registrar: a}
		_, err := pki.Failover{down(), second}.Register(ctx, r)
		require.Error(t, err)
		require.Empty(t, second.asked)
	})
}

// silent answers when its caller has had enough.
type silent struct{}

func (silent) Register(ctx context.Context, _ pki.Registration) (*pki.Credential, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func (silent) Renew(ctx context.Context, _ pki.Renewal) (*pki.Credential, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

// A renewal has a minute. Gateways that take the packets and say nothing leave
// enough of it for the last.
func TestFailoverSharesTheTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		identity := enroll(t, a, "edge")
		last := &renewals{Registrar: a}
		run(t, identity, pki.Failover{silent{}, silent{}, silent{}, last})
		time.Sleep(66 * day)
		synctest.Wait()
		require.Equal(t, 1, last.count())
		require.NoError(t, identity.Status().Failure)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		_, err := pki.Failover{silent{}, silent{}, &script{failures: []error{errFault}}}.Register(ctx, registration(t))
		require.NoError(t, ctx.Err())
		require.ErrorIs(t, err, errFault)
		require.ErrorIs(t, err, context.DeadlineExceeded) // of the first two
	})
}
