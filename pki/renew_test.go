package pki_test

import (
	"context"
	"crypto"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

const day = 24 * time.Hour

// run renews in the background until the test ends, and returns where the
// error of Run comes out.
func run(t testing.TB, identity *pki.Identity, registrar pki.Registrar) <-chan error {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { done <- identity.Run(ctx, registrar) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
	})
	return done
}

// renewals counts and notes what is asked of a registrar.
type renewals struct {
	pki.Registrar
	mu    sync.Mutex
	times []time.Time
	err   error // instead of asking
}

func (r *renewals) Renew(ctx context.Context, renewal pki.Renewal) (*pki.Credential, error) {
	r.mu.Lock()
	r.times = append(r.times, time.Now())
	err := r.err
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return r.Registrar.Renew(ctx, renewal)
}

func (r *renewals) set(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = err
}

func (r *renewals) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.times)
}

func TestRenewalComesInTime(t *testing.T) {
	for name, c := range map[string]struct{ lifetime, before time.Duration }{
		"a year: thirty days before":  {365 * day, 30 * day},
		"ninety days: thirty before":  {90 * day, 30 * day},
		"thirty days: a third before": {30 * day, 10 * day},
		"an hour: a third before":     {time.Hour, 65 * time.Minute / 3},
		"ten minutes: a third before": {10 * time.Minute, 11 * time.Minute / 3},
		"ten seconds: a third before": {10 * time.Second, 11 * time.Second / 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				a.Lifetime = c.lifetime
				identity := enroll(t, a, "edge")
				asked := &renewals{Registrar: a}
				start, end := time.Now(), identity.Status().NotAfter
				run(t, identity, asked)
				for asked.count() < 5 {
					time.Sleep(c.lifetime / 100)
				}
				synctest.Wait()
				// Dates in certificates are in seconds.
				earliest, latest := end.Add(-c.before*11/10-2*time.Second), end.Add(-c.before*9/10+2*time.Second)
				require.WithinRange(t, asked.times[0], earliest, latest)
				// It goes on at the same pace, and never in a hurry.
				least := time.Duration(float64(c.lifetime-c.before)*0.8) - 4*time.Second
				previous := start
				for _, at := range asked.times {
					require.Greater(t, at.Sub(previous), least)
					previous = at
				}
			})
		})
	}
}

func TestAFleetDoesNotRenewAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		asked := &renewals{Registrar: a}
		for range 50 {
			identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), a, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.NoError(t, err)
			run(t, identity, asked)
		}
		time.Sleep(70 * day)
		synctest.Wait()
		require.Equal(t, 50, asked.count())
		first, last := asked.times[0], asked.times[0]
		for _, at := range asked.times {
			if at.Before(first) {
				first = at
			}
			if at.After(last) {
				last = at
			}
		}
		require.Greater(t, last.Sub(first), 3*day) // of the six that are possible
	})
}

func TestEachRenewalHasANewKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := newAuthority(t)
		identity := enroll(t, a, "edge")
		identity.Logger = log.logger()
		config := identity.ClientTLS() // made once, sees the newest
		old := identity.Certificate()
		run(t, identity, a)
		for range 3 {
			time.Sleep(67 * day)
			synctest.Wait()
			now := identity.Certificate()
			require.NotEqual(t, old.Leaf.SerialNumber, now.Leaf.SerialNumber)
			require.NotEqual(t, old.Leaf.PublicKey, now.Leaf.PublicKey)
			require.Equal(t, old.Leaf.URIs, now.Leaf.URIs)
			presented, err := config.GetClientCertificate(nil)
			require.NoError(t, err)
			require.Same(t, now, presented)
			require.NoError(t, a.Verify(t.Context(), now.Leaf))
			old = now
		}
		require.Len(t, certificatesOf(t, a, "edge"), 4)
		require.Contains(t, log.String(), "certificate renewed")
	})
}

// Without a gateway the agent asks ever less often, and as soon as it is back,
// and the certificate still good, all is well.
func TestRenewalIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := newAuthority(t)
		identity := enroll(t, a, "edge")
		identity.Logger = log.logger()
		asked := &renewals{Registrar: a, err: errors.New("gateway is away")}
		run(t, identity, asked)
		time.Sleep(70 * day)
		synctest.Wait()
		require.EqualError(t, identity.Status().Failure, "gateway is away")
		require.Contains(t, log.String(), "gateway is away")
		gap := func(i int) time.Duration { return asked.times[i+1].Sub(asked.times[i]) }
		require.InDelta(t, time.Minute, gap(0), float64(7*time.Second))
		require.InDelta(t, 2*time.Minute, gap(1), float64(13*time.Second))
		require.InDelta(t, time.Hour, gap(asked.count()-2), float64(7*time.Minute))

		asked.set(nil)
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		require.NoError(t, identity.Status().Failure)
		require.WithinDuration(t, time.Now().Add(90*day), identity.Status().NotAfter, 2*time.Hour)
		require.WithinRange(t, identity.Status().RenewAt, time.Now().Add(56*day), time.Now().Add(64*day))
	})
}

func TestRenewalWaitsAsTheGatewayAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		identity := enroll(t, a, "edge")
		asked := &renewals{Registrar: a, err: &pki.UnavailableError{Status: 503, RetryAfter: 30 * time.Minute}}
		run(t, identity, asked)
		time.Sleep(70 * day)
		synctest.Wait()
		require.GreaterOrEqual(t, asked.times[1].Sub(asked.times[0]), 30*time.Minute)
	})
}

// A revoked agent does not hammer the gateway, and says so when it is over.
func TestARefusedRenewalEndsWithTheCertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		identity := enroll(t, a, "edge")
		_, err := a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
		require.NoError(t, err)
		asked := &renewals{Registrar: a}
		done := run(t, identity, asked)
		time.Sleep(80 * day)
		synctest.Wait()
		require.ErrorIs(t, identity.Status().Failure, &pki.RegistrationError{Renewal: true})
		time.Sleep(11 * day)
		synctest.Wait()
		require.ErrorIs(t, <-done, pki.ErrExpired)
		require.Less(t, asked.count(), 40*24)
		require.Zero(t, identity.Status().RenewAt)
	})
}

func TestRunEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		identity := enroll(t, a, "edge")
		why := errors.New("shutting down")
		ctx, cancel := context.WithCancelCause(t.Context())
		done := make(chan error, 1)
		go func() { done <- identity.Run(ctx, a) }()
		synctest.Wait()
		require.ErrorContains(t, identity.Run(t.Context(), a), "running already")
		cancel(why)
		require.ErrorIs(t, <-done, why)
	})
}

// A registrar whose certificates are due as soon as they are issued is not
// asked in a loop.
func TestAHastyRegistrarIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		identity := enroll(t, a, "edge")
		asked := &renewals{Registrar: hasty{a}}
		run(t, identity, asked)
		time.Sleep(365 * day)
		synctest.Wait()
		require.InDelta(t, 6, asked.count(), 1)
	})
}

// An authority that nears its own end issues ever shorter certificates. Its
// agents follow it to the end, not in a frenzy.
func TestTheEndOfTheAuthorityIsNoFrenzy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		time.Sleep(time.Until(a.Certificate.NotAfter) - 60*day)
		identity := enroll(t, a, "edge")
		asked := &renewals{Registrar: a}
		done := run(t, identity, asked)
		require.ErrorIs(t, <-done, pki.ErrExpired)
		require.Less(t, asked.count(), 30)
	})
}

type hasty struct{ *pki.Authority }

func (h hasty) Renew(ctx context.Context, r pki.Renewal) (*pki.Credential, error) {
	c, err := h.Authority.Renew(ctx, r)
	if err == nil {
		c.RenewAfter = c.NotBefore
	}
	return c, err
}

func TestARegistrarMayAskForAnEarlierRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		early := tampered{a, func(c *pki.Credential) { c.RenewAfter = c.NotAfter.Add(-60 * day) }}
		identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), early, pki.Registration{Token: grant(t, a, pki.Grant{})})
		require.NoError(t, err)
		run(t, identity, a)
		synctest.Wait()
		require.WithinRange(t, identity.Status().RenewAt, time.Now().Add(24*day-time.Second), time.Now().Add(36*day+time.Second))
	})
}

// The rules of the authority for a renewal.
func TestWhoMayRenew(t *testing.T) {
	a, log := newAuthority(t)
	identity := enroll(t, a, "edge")
	leaf := identity.Certificate().Leaf
	stranger, _ := newAuthority(t)
	renew := func(r pki.Renewal) (*pki.Credential, error) { return a.Renew(t.Context(), r) }

	t.Run("nobody without a certificate", func(t *testing.T) {
		_, err := renew(pki.Renewal{CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
	t.Run("nobody with another authority's certificate", func(t *testing.T) {
		_, err := renew(pki.Renewal{Presented: enroll(t, stranger, "edge").Certificate().Leaf, CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
	t.Run("not the authority itself", func(t *testing.T) {
		_, err := renew(pki.Renewal{Presented: a.Certificate, CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
	t.Run("not with the same key", func(t *testing.T) {
		csr := csrOf(t, identity.Certificate().PrivateKey.(crypto.Signer))
		_, err := renew(pki.Renewal{Presented: leaf, CSR: csr})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
		require.Contains(t, log.String(), "key was used before")
	})
	t.Run("again with the same new key, for the same certificate", func(t *testing.T) {
		key := newKey(t)
		first, err := renew(pki.Renewal{Presented: leaf, CSR: csrOf(t, key)})
		require.NoError(t, err)
		again, err := renew(pki.Renewal{Presented: leaf, CSR: csrOf(t, key)})
		require.NoError(t, err)
		require.Equal(t, first, again)
		_, err = renew(pki.Renewal{Presented: leafOf(t, first), CSR: csrOf(t, key)})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
	t.Run("five times from one certificate", func(t *testing.T) {
		presented := enroll(t, a, "core").Certificate().Leaf
		for range 5 {
			_, err := renew(pki.Renewal{Presented: presented, CSR: csrOf(t, newKey(t))})
			require.NoError(t, err)
		}
		_, err := renew(pki.Renewal{Presented: presented, CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
		require.Contains(t, log.String(), "renewed too often")
	})
	t.Run("nobody revoked", func(t *testing.T) {
		presented := enroll(t, a, "gone").Certificate().Leaf
		_, err := a.Revoke(t.Context(), pki.Revocation{Serial: pki.SerialOf(presented)})
		require.NoError(t, err)
		_, err = renew(pki.Renewal{Presented: presented, CSR: csrOf(t, newKey(t))})
		require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	})
}

// interposed does something else after the first view, which is when a renewal
// or a registration has looked and not yet decided.
type interposed struct {
	pki.Store
	then func()
}

func (s *interposed) View(ctx context.Context, f func(pki.Tx) error) error {
	err := s.Store.View(ctx, f)
	if then := s.then; then != nil {
		s.then = nil
		then()
	}
	return err
}

func TestARenewalCannotEscapeARevocation(t *testing.T) {
	a, _ := newAuthority(t)
	leaf := enroll(t, a, "edge").Certificate().Leaf
	a.Store = &interposed{Store: a.Store, then: func() {
		revoked, err := a.Revoke(t.Context(), pki.Revocation{Agent: "edge"})
		require.NoError(t, err)
		require.Len(t, revoked, 1)
	}}
	_, err := a.Renew(t.Context(), pki.Renewal{Presented: leaf, CSR: csrOf(t, newKey(t))})
	require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
	require.Len(t, certificatesOf(t, a, "edge"), 1)
}

func TestARenewalThatIsAskedTwiceAtOnce(t *testing.T) {
	a, _ := newAuthority(t)
	leaf := enroll(t, a, "edge").Certificate().Leaf
	r := pki.Renewal{Presented: leaf, CSR: csrOf(t, newKey(t))}
	var first *pki.Credential
	a.Store = &interposed{Store: a.Store, then: func() {
		var err error
		first, err = a.Renew(t.Context(), r)
		require.NoError(t, err)
	}}
	second, err := a.Renew(t.Context(), r)
	require.NoError(t, err)
	require.Equal(t, first, second)
	require.Len(t, certificatesOf(t, a, "edge"), 2)
}

func TestATokenThatIsRevokedWhileItIsRedeemed(t *testing.T) {
	a, _ := newAuthority(t)
	token := grant(t, a, pki.Grant{})
	a.Store = &interposed{Store: a.Store, then: func() {
		require.NoError(t, a.RevokeGrant(t.Context(), token.ID(), "too late"))
	}}
	_, err := a.Register(t.Context(), pki.Registration{Token: token, CSR: csrOf(t, newKey(t))})
	requireRefused(t, err)
	require.Empty(t, certificatesOf(t, a, ""))
}

// The client presents the identity's certificate and trusts the roots of the
// credential, not what it trusted when it registered.
func TestRenewalOverTheNetwork(t *testing.T) {
	a, _ := newAuthority(t)
	base := serve(t, a, pki.HandlerConfig{})
	identity := enroll(t, a, "edge")
	other, err := pki.ParsePin(somePin)
	require.NoError(t, err)
	client := &pki.Client{Gateway: localhost(base), Pins: []pki.Pin{other}}
	c, err := client.Renew(t.Context(), pki.Renewal{CSR: csrOf(t, newKey(t)), TLS: identity.ClientTLS()})
	require.NoError(t, err)
	require.Equal(t, "edge", c.Agent)
	require.NotEqual(t, identity.Status().Serial, c.Serial)

	stranger, _ := newAuthority(t)
	client.Gateway = localhost(serve(t, stranger, pki.HandlerConfig{}))
	_, err = client.Renew(t.Context(), pki.Renewal{CSR: csrOf(t, newKey(t)), TLS: identity.ClientTLS()})
	require.ErrorContains(t, err, "unknown authority")
}
