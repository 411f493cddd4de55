package pki_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// script is a registrar that fails in the given ways before it asks another.
type script struct {
	pki.Registrar
	failures []error
	asked    []time.Time
}

func (s *script) fail() error {
	s.asked = append(s.asked, time.Now())
	if len(s.failures) == 0 {
		return nil
	}
	err := s.failures[0]
	s.failures = s.failures[1:]
	return err
}

func (s *script) Register(ctx context.Context, r pki.Registration) (*pki.Credential, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Registrar.Register(ctx, r)
}

func (s *script) Renew(ctx context.Context, r pki.Renewal) (*pki.Credential, error) {
	if err := s.fail(); err != nil {
		return nil, err
	}
	return s.Registrar.Renew(ctx, r)
}

var errRefusedConn = &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}

func TestEnrolmentWaitsForItsGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := newAuthority(t)
		gateway := &script{Registrar: a, failures: []error{
			fmt.Errorf("dial: %w", errRefusedConn),
			&net.DNSError{Err: "no such host", Name: "gateway.example.com", IsNotFound: true},
			fmt.Errorf("reply: %w", io.ErrUnexpectedEOF),
			io.EOF,
			context.DeadlineExceeded, // of one attempt
			&pki.UnavailableError{Status: 503},
			&pki.UnavailableError{Status: 429, RetryAfter: 5 * time.Minute},
			errors.Join(&pki.PinError{}, errRefusedConn), // two gateways: one is not the right one, the other may come back
		}}
		token := grant(t, a, pki.Grant{Agent: "edge", TTL: time.Hour})
		e := &pki.Enroller{Storage: new(pki.MemoryStorage), Registrar: gateway, Logger: log.logger()}
		identity, err := e.Enroll(t.Context(), pki.Registration{Token: token})
		require.NoError(t, err)
		require.Equal(t, "edge", identity.Agent())
		require.Len(t, gateway.asked, 9)
		require.Contains(t, log.String(), "not enrolled yet")
		for i, seconds := range []float64{1, 2, 4, 8, 16, 30, 300, 30} {
			gap := gateway.asked[i+1].Sub(gateway.asked[i])
			require.InDelta(t, seconds, gap.Seconds(), seconds/10+1e-6, "gap %d", i)
		}
	})
}

func TestEnrolmentGivesUpWhereTimeIsNoHelp(t *testing.T) {
	for name, failure := range map[string]error{
		"refused":               &pki.RegistrationError{},
		"another key":           fmt.Errorf("dial: %w", &pki.PinError{}),
		"another authority":     &tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}},
		"two wrong gateways":    errors.Join(&pki.PinError{}, &tls.CertificateVerificationError{Err: errFault}),
		"a full disk":           &fs.PathError{Op: "write", Path: "pending", Err: syscall.ENOSPC},
		"something unknown":     errFault,
		"the end of its caller": context.Canceled,
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			gateway := &script{Registrar: a, failures: []error{failure}}
			_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), gateway, pki.Registration{Token: grant(t, a, pki.Grant{})})
			require.ErrorIs(t, err, failure)
			require.Len(t, gateway.asked, 1)
		})
	}
}

func TestEnrolmentEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		gateway := &renewals{Registrar: registrarFunc(func(context.Context, pki.Registration) (*pki.Credential, error) {
			return nil, errRefusedConn
		})}
		_, err := pki.Enroll(ctx, new(pki.MemoryStorage), gateway, pki.Registration{Token: grant(t, a, pki.Grant{})})
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.ErrorIs(t, err, syscall.ECONNREFUSED) // why it took so long
	})
}

// Of an agent that was switched off for longer than its certificate lived.
func TestAnExpiredIdentityComesBackWithinItsGrace(t *testing.T) {
	const grace = 30 * day
	// away is an agent that has been off until its certificate was over for so
	// long, and a registrar that renews expired certificates.
	away := func(t *testing.T, since time.Duration) (*pki.Enroller, *script, string) {
		a, log := newAuthority(t)
		storage := new(pki.MemoryStorage)
		first, err := pki.Enroll(t.Context(), storage, a, pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"})})
		require.NoError(t, err)
		time.Sleep(time.Until(first.Status().NotAfter) + since)
		lenient := &script{Registrar: lenient{a}}
		return &pki.Enroller{Storage: storage, Registrar: lenient, RenewalGrace: grace, Logger: log.logger()}, lenient, first.Status().Serial
	}
	t.Run("by Enroll, without a token", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, gateway, serial := away(t, grace-day)
			gateway.failures = []error{errRefusedConn} // and it waits for the gateway
			identity, err := e.Enroll(t.Context(), pki.Registration{})
			require.NoError(t, err)
			require.Equal(t, "edge", identity.Agent())
			require.NotEqual(t, serial, identity.Status().Serial)
			require.Greater(t, time.Until(identity.Status().NotAfter), 80*day)
			stored, err := pki.Load(t.Context(), e.Storage)
			require.NoError(t, err)
			require.Equal(t, identity.Status().Serial, stored.Status().Serial)
		})
	})
	t.Run("by Run", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, _, serial := away(t, grace-day)
			identity, err := pki.Load(t.Context(), e.Storage)
			require.NoError(t, err)
			identity.RenewalGrace = grace
			run(t, identity, e.Registrar)
			time.Sleep(time.Second)
			synctest.Wait()
			require.NotEqual(t, serial, identity.Status().Serial)
		})
	})
	t.Run("not after it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, gateway, _ := away(t, grace+time.Second)
			_, err := e.Enroll(t.Context(), pki.Registration{})
			require.ErrorContains(t, err, "no token")
			identity, err := pki.Load(t.Context(), e.Storage)
			require.NoError(t, err)
			identity.RenewalGrace = grace
			require.ErrorIs(t, identity.Run(t.Context(), e.Registrar), pki.ErrExpired)
			require.Empty(t, gateway.asked)
		})
	})
	t.Run("not without the option", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, gateway, _ := away(t, time.Second)
			e.RenewalGrace = 0
			_, err := e.Enroll(t.Context(), pki.Registration{})
			require.ErrorContains(t, err, "no token")
			require.Empty(t, gateway.asked)
		})
	})
	t.Run("not if the gateway refuses", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			e, gateway, serial := away(t, time.Second)
			gateway.failures = []error{&pki.RegistrationError{Renewal: true}}
			_, err := e.Enroll(t.Context(), pki.Registration{})
			require.ErrorIs(t, err, pki.ErrExpired)
			require.ErrorIs(t, err, &pki.RegistrationError{Renewal: true})
			stored, err := pki.Load(t.Context(), e.Storage)
			require.NoError(t, err)
			require.Equal(t, serial, stored.Status().Serial)
		})
	})
}

// lenient renews whatever is presented to it: its agents' side alone is tested
// here.
type lenient struct{ *pki.Authority }

func (l lenient) Renew(ctx context.Context, r pki.Renewal) (*pki.Credential, error) {
	token, err := l.Grant(ctx, pki.Grant{Agent: r.Presented.Subject.CommonName})
	if err != nil {
		return nil, err
	}
	return l.Register(ctx, pki.Registration{Token: token, CSR: r.CSR})
}
