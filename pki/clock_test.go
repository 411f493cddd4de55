package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// The client compares its clock with the Date of the gateway's answer.
func TestTheGatewaysClockIsRead(t *testing.T) {
	for _, skew := range []time.Duration{0, 30 * time.Second, time.Hour, -time.Hour, 30 * day, -30 * day, 10 * 365 * day} {
		a, _ := newAuthority(t)
		api := pki.Handler(a, pki.HandlerConfig{})
		base := serveTLS(t, a, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
			api.ServeHTTP(w, r)
		}))
		c, err := clientOf(a, base).Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: csrOf(t, newKey(t))})
		require.NoError(t, err)
		require.InDelta(t, skew, c.ClockSkew, float64(time.Second))
		if skew == 0 {
			require.Zero(t, c.ClockSkew)
		}
	}
}

func TestAWrongClockIsNoticed(t *testing.T) {
	for name, c := range map[string]struct {
		ahead   time.Duration
		said    bool // the registrar tells its time
		want    time.Duration
		warning bool
	}{
		"right":                           {0, true, 0, false},
		"a little behind":                 {-30 * time.Second, true, 30 * time.Second, false},
		"an hour behind":                  {-time.Hour, true, time.Hour, true},
		"an hour ahead":                   {time.Hour, true, -time.Hour, true},
		"ten years ahead":                 {3650 * day, true, -3650 * day, true},
		"1970":                            {-30 * 365 * day, true, 30 * 365 * day, true},
		"an hour behind, by the dates":    {-time.Hour, false, 55 * time.Minute, true},
		"an hour ahead, which dates hide": {time.Hour, false, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, log := newAuthority(t)
				clock := new(machine)
				clock.set(c.ahead)
				e := &pki.Enroller{Storage: new(pki.MemoryStorage), Registrar: a, Logger: log.logger()}
				if c.said {
					e.Registrar = remote{a, clock}
				}
				e.SetClock(clock.now)
				identity, err := e.Enroll(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{})})
				require.NoError(t, err)
				require.Equal(t, c.want, identity.Status().ClockSkew)
				if c.warning {
					require.Contains(t, log.String(), "by NTP")
				} else {
					require.NotContains(t, log.String(), "NTP")
				}
			})
		})
	}
}

// A registrar that talks nonsense about the time is not believed: its
// certificate was not good then.
func TestADateThatTheCertificateBeliesIsIgnored(t *testing.T) {
	a, _ := newAuthority(t)
	for _, skew := range []time.Duration{-day, 3650 * day} {
		liar := tampered{a, func(c *pki.Credential) { c.ClockSkew = skew }}
		identity, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), liar, pki.Registration{Token: grant(t, a, pki.Grant{})})
		require.NoError(t, err)
		require.Zero(t, identity.Status().ClockSkew)
	}
}

func TestAnErrorThatAWrongClockExplainsNamesNTP(t *testing.T) {
	t.Run("of the gateway's certificate", func(t *testing.T) {
		for _, pinned := range []bool{false, true} {
			chain := chainOf{names: []string{"localhost"}, usage: x509.ExtKeyUsageServerAuth, rootCA: true, expired: true}
			cert, issuer := chain.make(t)
			client := &pki.Client{Gateway: localhost(serveWith(t, &tls.Config{Certificates: []tls.Certificate{cert}}, http.NotFoundHandler()))}
			client.Roots = x509.NewCertPool()
			client.Roots.AddCert(issuer)
			if pinned {
				client.Pins = []pki.Pin{pki.PinOf(issuer)}
			}
			_, err := client.Register(t.Context(), registration(t))
			require.ErrorContains(t, err, "expired")
			require.ErrorContains(t, err, "by NTP")
		}
	})
	t.Run("of the agent's own", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			a, _ := newAuthority(t)
			// An answer that took its time stands for a clock that is ahead.
			slow := registrarFunc(func(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
				c, err := a.Register(ctx, r)
				time.Sleep(100 * day)
				return c, err
			})
			_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), slow, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.ErrorContains(t, err, "by NTP")
		})
	})
}

// machine is a clock that can be set. It runs as all others do.
type machine struct{ off atomic.Int64 }

func (m *machine) now() time.Time { return time.Now().Round(0).Add(m.skew()) }

func (m *machine) skew() time.Duration { return time.Duration(m.off.Load()) }

func (m *machine) set(ahead time.Duration) { m.off.Store(int64(ahead)) }

// remote tells, as a Client does, how the clock of a machine differs.
type remote struct {
	pki.Registrar
	machine *machine
}

func (r remote) Register(ctx context.Context, reg pki.Registration) (*pki.Credential, error) {
	c, err := r.Registrar.Register(ctx, reg)
	if err == nil {
		c.ClockSkew = -r.machine.skew()
	}
	return c, err
}

func (r remote) Renew(ctx context.Context, renewal pki.Renewal) (*pki.Credential, error) {
	c, err := r.Registrar.Renew(ctx, renewal)
	if err == nil {
		c.ClockSkew = -r.machine.skew()
	}
	return c, err
}

// enrollBy makes an agent on a machine.
func enrollBy(t testing.TB, a *pki.Authority, m *machine) *pki.Identity {
	t.Helper()
	e := &pki.Enroller{Storage: new(pki.MemoryStorage), Registrar: remote{a, m}}
	e.SetClock(m.now)
	identity, err := e.Enroll(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{})})
	require.NoError(t, err)
	return identity
}

// Wherever the clock of a machine is set to while it runs: its certificate is
// renewed before it ends, and no more often than once more than otherwise.
func TestAClockThatJumpsIsSurvived(t *testing.T) {
	const lifetime = 10 * time.Minute
	for _, jump := range []time.Duration{
		0, time.Minute, -time.Minute, 5 * time.Minute, -5 * time.Minute, time.Hour, -time.Hour,
		30 * day, -30 * day, 3650 * day, -20000 * day,
	} {
		t.Run(jump.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, _ := newAuthority(t)
				a.Lifetime = lifetime
				clock := new(machine)
				identity := enrollBy(t, a, clock)
				asked := &renewals{Registrar: remote{a, clock}}
				done := run(t, identity, asked)
				begin := time.Now()
				for step := range 120 {
					switch step {
					case 15:
						clock.set(jump)
					case 75:
						clock.set(0) // and back
					}
					time.Sleep(30 * time.Second)
					require.Positive(t, time.Until(identity.Status().NotAfter), "after %s", time.Since(begin))
				}
				require.Empty(t, done)
				require.LessOrEqual(t, asked.count(), 10+2)
			})
		})
	}
}

// A clock that is far ahead makes a certificate look ended. That is believed
// when as much time has passed, or when the machine starts with it.
func TestAnEndThatTheClockAloneSeesIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		clock := new(machine)
		identity := enrollBy(t, a, clock)
		asked := &renewals{Registrar: remote{a, clock}, err: errFault}
		done := run(t, identity, asked)
		time.Sleep(time.Hour)
		clock.set(365 * day)
		time.Sleep(2 * day)
		require.Empty(t, done)
		require.InDelta(t, 48, asked.count(), 12) // it tries, and does not hammer

		asked.set(nil)
		time.Sleep(2 * time.Hour)
		require.NoError(t, identity.Status().Failure)
		require.Greater(t, time.Until(identity.Status().NotAfter), 89*day)
		require.Equal(t, -365*day, identity.Status().ClockSkew)

		asked.set(errFault)
		require.ErrorIs(t, <-done, pki.ErrExpired)
		require.WithinDuration(t, identity.Status().NotAfter, time.Now(), 2*time.Second)
	})
}
