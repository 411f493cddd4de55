package pki_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

type faultyStorage struct {
	pki.Storage
	*fault
}

func (s faultyStorage) Load(ctx context.Context, name string) (data []byte, err error) {
	err = s.around(func() error {
		data, err = s.Storage.Load(ctx, name)
		return err
	})
	return data, err
}

func (s faultyStorage) Save(ctx context.Context, name string, data []byte) error {
	return s.around(func() error { return s.Storage.Save(ctx, name, data) })
}

func (s faultyStorage) Delete(ctx context.Context, name string) error {
	return s.around(func() error { return s.Storage.Delete(ctx, name) })
}

type faultyStore struct {
	pki.Store
	*fault
}

func (s faultyStore) View(ctx context.Context, f func(pki.Tx) error) error {
	return s.around(func() error { return s.Store.View(ctx, f) })
}

func (s faultyStore) Update(ctx context.Context, f func(pki.Tx) error) error {
	return s.around(func() error { return s.Store.Update(ctx, f) })
}

// faultyRegistrar stands for the network: what is asked or answered gets lost.
type faultyRegistrar struct {
	pki.Registrar
	*fault
}

func (r faultyRegistrar) Register(ctx context.Context, reg pki.Registration) (c *pki.Credential, err error) {
	err = r.around(func() error {
		c, err = r.Registrar.Register(ctx, reg)
		return err
	})
	return c, err
}

func (r faultyRegistrar) Renew(ctx context.Context, renewal pki.Renewal) (c *pki.Credential, err error) {
	err = r.around(func() error {
		c, err = r.Registrar.Renew(ctx, renewal)
		return err
	})
	return c, err
}

// Wherever an enrolment stops, on either side or between, the next attempt with
// the same token and what is stored goes on, and one identity comes of it.
func TestEnrolmentRecoversFromAFailureAnywhere(t *testing.T) {
	points := 0
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			a, _ := newAuthority(t)
			token := grant(t, a, pki.Grant{Agent: "edge"})
			fault := &fault{at: at, after: after}
			a.Store = faultyStore{a.Store, fault}
			memory := new(pki.MemoryStorage)
			storage := faultyStorage{memory, fault}
			registrar := faultyRegistrar{a, fault}
			r := pki.Registration{Token: token}

			_, err := pki.Enroll(t.Context(), storage, registrar, r)
			if fault.count < at {
				require.NoError(t, err, "nothing failed")
				break
			}
			points++
			// A failure of the last step, clearing up, is none.
			if err != nil {
				require.ErrorIs(t, err, errFault, "at %d", at)
			}
			// The process starts again: only what is stored is left.
			identity, err := pki.Enroll(t.Context(), memory, a, r)
			require.NoError(t, err, "failure at %d, after: %t", at, after)
			require.Equal(t, "edge", identity.Agent())
			require.Len(t, certificatesOf(t, a, "edge"), 1, "failure at %d, after: %t", at, after)
			again, err := pki.Load(t.Context(), memory)
			require.NoError(t, err)
			require.Equal(t, identity.Status().Serial, again.Status().Serial)
		}
	}
	require.GreaterOrEqual(t, points, 14)
}

// The same for a renewal: the old identity works until the new one is stored.
func TestRenewalRecoversFromAFailureAnywhere(t *testing.T) {
	points := 0
	for _, after := range []bool{false, true} {
		for at := 1; ; at++ {
			done := false
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				memory := new(pki.MemoryStorage)
				first, err := pki.Enroll(t.Context(), memory, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
				require.NoError(t, err)

				fault := &fault{at: at, after: after}
				store := a.Store
				a.Store = faultyStore{store, fault}
				identity, err := pki.Load(t.Context(), faultyStorage{memory, fault})
				if errors.Is(err, errFault) {
					points++
					return // a failure to load is the caller's to repeat
				}
				require.NoError(t, err)
				run(t, identity, faultyRegistrar{a, fault})
				time.Sleep(67 * 24 * time.Hour)
				synctest.Wait()
				a.Store = store

				stored, err := pki.Load(t.Context(), memory)
				require.NoError(t, err)
				require.NotEqual(t, first.Status().Serial, stored.Status().Serial, "failure at %d, after: %t", at, after)
				require.Equal(t, identity.Status().Serial, stored.Status().Serial)
				require.NoError(t, a.Verify(t.Context(), stored.Certificate().Leaf))
				require.Len(t, certificatesOf(t, a, "edge"), 2, "failure at %d, after: %t", at, after)
				if done = fault.count < at; !done {
					points++
				}
			})
			if done {
				break
			}
		}
	}
	require.GreaterOrEqual(t, points, 12)
}

func TestEnrollAtEveryStart(t *testing.T) {
	a, _ := newAuthority(t)
	storage := openStorage(t, t.TempDir()+"/agent")
	first := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})}
	enrolled, err := pki.Enroll(t.Context(), storage, a, first)
	require.NoError(t, err)

	t.Run("the token that was used does no harm", func(t *testing.T) {
		identity, err := pki.Enroll(t.Context(), storage, failing{}, first)
		require.NoError(t, err)
		require.Equal(t, enrolled.Status(), identity.Status())
	})
	t.Run("no token is needed any more", func(t *testing.T) {
		identity, err := pki.Enroll(t.Context(), storage, failing{}, pki.Registration{})
		require.NoError(t, err)
		require.Equal(t, enrolled.Status(), identity.Status())
	})
	t.Run("another agent's storage is not taken for one's own", func(t *testing.T) {
		_, err := pki.Enroll(t.Context(), storage, failing{}, pki.Registration{Agent: "core"})
		require.ErrorContains(t, err, `identity of agent "edge", not of "core"`)
	})
	t.Run("a new token that is refused leaves the identity", func(t *testing.T) {
		_, err := pki.Enroll(t.Context(), storage, a, registration(t))
		requireRefused(t, err)
		identity, err := pki.Load(t.Context(), storage)
		require.NoError(t, err)
		require.Equal(t, enrolled.Status(), identity.Status())
	})
	t.Run("a new token enrols anew", func(t *testing.T) {
		identity, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
		require.NoError(t, err)
		require.NotEqual(t, enrolled.Status().Serial, identity.Status().Serial)
	})
}

func TestEnrollWithoutAnything(t *testing.T) {
	_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), failing{}, pki.Registration{})
	require.ErrorContains(t, err, "no token")
	_, err = pki.Load(t.Context(), new(pki.MemoryStorage))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestAnExpiredIdentityEnrolsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		storage := new(pki.MemoryStorage)
		_, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
		require.NoError(t, err)
		time.Sleep(91 * 24 * time.Hour)
		_, err = pki.Enroll(t.Context(), storage, a, pki.Registration{})
		require.ErrorContains(t, err, "no token")
		identity, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
		require.NoError(t, err)
		require.NoError(t, a.Verify(t.Context(), identity.Certificate().Leaf))
	})
}

// Damage is reported and never repaired by throwing the identity away.
func TestADamagedIdentityIsNotReplaced(t *testing.T) {
	a, _ := newAuthority(t)
	for name, data := range map[string]string{
		"no JSON":         "{",
		"another version": `{"version":2,"credential":{}}`,
		"no credential":   `{"version":1}`,
		"no key":          `{"version":1,"credential":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			storage := new(pki.MemoryStorage)
			require.NoError(t, storage.Save(t.Context(), "identity", []byte(data)))
			token := grant(t, a, pki.Grant{})
			_, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: token})
			require.Error(t, err)
			left, err := storage.Load(t.Context(), "identity")
			require.NoError(t, err)
			require.Equal(t, data, string(left))
		})
	}
}

// The key is on disk before anybody hears of it.
func TestTheKeyIsStoredBeforeItIsSent(t *testing.T) {
	a, _ := newAuthority(t)
	storage := new(pki.MemoryStorage)
	_, err := pki.Enroll(t.Context(), storage, registrarFunc(func(context.Context, pki.Registration) (*pki.Credential, error) {
		_, err := storage.Load(t.Context(), "pending")
		return nil, fmt.Errorf("seen: %w", errors.Join(err, errFault))
	}), pki.Registration{Token: grant(t, a, pki.Grant{})})
	require.ErrorIs(t, err, errFault)
	require.NotErrorIs(t, err, fs.ErrNotExist)
}

type registrarFunc func(context.Context, pki.Registration) (*pki.Credential, error)

func (f registrarFunc) Register(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
	return f(ctx, r)
}

func (f registrarFunc) Renew(context.Context, pki.Renewal) (*pki.Credential, error) {
	return nil, errors.New("not here")
}
