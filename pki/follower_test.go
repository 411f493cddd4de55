package pki_test

import (
	"context"
	"crypto/tls"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// follow runs a follower until the test ends.
func follow(t *testing.T, f *pki.Follower) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = f.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
}

// switchable is a store that can be taken away.
type switchable struct {
	pki.Store
	away atomic.Bool
}

func (s *switchable) View(ctx context.Context, f func(pki.Tx) error) error {
	if s.away.Load() {
		return errFault
	}
	return s.Store.View(ctx, f)
}

func (s *switchable) Update(ctx context.Context, f func(pki.Tx) error) error {
	if s.away.Load() {
		return errFault
	}
	return s.Store.Update(ctx, f)
}

func TestAFollowerHearsOfEveryRevocation(t *testing.T) {
	for name, revoke := range map[string]func(*pki.Identity) pki.Revocation{
		"by agent":  func(i *pki.Identity) pki.Revocation { return pki.Revocation{Agent: i.Agent()} },
		"by serial": func(i *pki.Identity) pki.Revocation { return pki.Revocation{Serial: i.Status().Serial} },
		"by key": func(i *pki.Identity) pki.Revocation {
			return pki.Revocation{Key: pki.PinOf(i.Certificate().Leaf)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				edge, core := enroll(t, a, "edge"), enroll(t, a, "core")
				var told atomic.Int32
				f := &pki.Follower{Store: a.Store, Changed: func() { told.Add(1) }}
				require.ErrorIs(t, f.Check(connected(edge.Certificate().Leaf)), pki.ErrStale, "it has heard nothing yet")
				follow(t, f)
				synctest.Wait()
				require.NoError(t, f.Check(connected(edge.Certificate().Leaf)))

				_, err := a.Revoke(t.Context(), revoke(edge))
				require.NoError(t, err)
				time.Sleep(time.Second)
				synctest.Wait()
				require.ErrorIs(t, f.Check(connected(edge.Certificate().Leaf)), pki.ErrRevoked)
				require.NoError(t, f.Check(connected(core.Certificate().Leaf)))
				require.NoError(t, f.Check(tls.ConnectionState{}), "who is nobody cannot be revoked")
				require.EqualValues(t, 1, told.Load())
				time.Sleep(time.Minute)
				require.EqualValues(t, 1, told.Load(), "nothing new")
			})
		})
	}
}

func TestAFollowerThatStartsLateHearsOfWhatWas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		edge := enroll(t, a, "edge")
		_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
		require.NoError(t, err)
		f := &pki.Follower{Store: a.Store}
		follow(t, f)
		synctest.Wait()
		require.ErrorIs(t, f.Check(connected(edge.Certificate().Leaf)), pki.ErrRevoked)
	})
}

func TestARevocationHereIsHeardAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		edge := enroll(t, a, "edge")
		a.Follower = &pki.Follower{Store: a.Store, Interval: time.Hour}
		follow(t, a.Follower)
		synctest.Wait()
		_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
		require.NoError(t, err)
		synctest.Wait()
		require.ErrorIs(t, a.Follower.Check(connected(edge.Certificate().Leaf)), pki.ErrRevoked)
	})
}

// While the store is away its follower judges, for a minute.
func TestAFollowerStandsInForItsStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		good, bad := connected(enroll(t, a, "edge").Certificate().Leaf), connected(enroll(t, a, "core").Certificate().Leaf)
		_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "core"})
		require.NoError(t, err)
		store := &switchable{Store: a.Store}
		log := new(journal)
		a.Store = store
		a.Follower = &pki.Follower{Store: store, Logger: log.logger()}
		follow(t, a.Follower)
		synctest.Wait()

		store.away.Store(true)
		for range 59 {
			time.Sleep(time.Second)
			require.NoError(t, a.VerifyConnection(good))
			name, err := a.Identify(good)
			require.NoError(t, err)
			require.Equal(t, "edge", name)
			require.ErrorIs(t, a.VerifyConnection(bad), pki.ErrRevoked)
		}
		time.Sleep(2 * time.Second)
		require.ErrorIs(t, a.VerifyConnection(good), pki.ErrStale)
		_, err = a.Identify(good)
		require.ErrorIs(t, err, pki.ErrStale)
		require.Contains(t, log.String(), "cannot hear of revocations")

		store.away.Store(false)
		time.Sleep(time.Second)
		synctest.Wait()
		require.NoError(t, a.VerifyConnection(good))
		require.Contains(t, log.String(), "heard of again")
		store.away.Store(true)
		time.Sleep(30 * time.Second)
		require.NoError(t, a.VerifyConnection(good), "the minute begins anew")
	})
}

func TestARevokedKeyIsNeverCertifiedAgain(t *testing.T) {
	a, log := newAuthority(t)
	key := newKey(t)
	c, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)})
	require.NoError(t, err)
	waiting := grant(t, a, pki.Grant{Key: pinOf(t, key)})
	revoked, err := a.Revoke(t.Context(), pki.Revocation{Key: pinOf(t, key), Reason: "in a public repository"})
	require.NoError(t, err)
	require.Len(t, revoked, 1)
	require.ErrorIs(t, a.Verify(t.Context(), leafOf(t, c)), pki.ErrRevoked)
	again, err := a.Revoke(t.Context(), pki.Revocation{Key: pinOf(t, key)})
	require.NoError(t, err)
	require.Empty(t, again)

	for _, token := range []pki.Token{grant(t, a, pki.Grant{Agent: "core"}), waiting} {
		_, err = a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, key)})
		requireRefused(t, err)
	}
	require.Contains(t, log.String(), "in a public repository")
	_, err = a.Renew(t.Context(), pki.Renewal{Presented: enroll(t, a, "core").Certificate().Leaf, CSR: csrOf(t, key)})
	require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})

	never := newKey(t)
	_, err = a.Revoke(t.Context(), pki.Revocation{Key: pinOf(t, never)})
	require.NoError(t, err, "the key need not be known")
	_, err = a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "dmz"}), CSR: csrOf(t, never)})
	requireRefused(t, err)
}
