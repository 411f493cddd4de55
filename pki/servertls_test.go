package pki_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

func TestServerTLSHasTwoModesAndNeedsNames(t *testing.T) {
	a, _ := newAuthority(t)
	for name, c := range map[string]struct {
		clients tls.ClientAuthType
		names   []string
		ok      bool
	}{
		"one port for all":         {tls.VerifyClientCertIfGiven, []string{"gateway.example.com"}, true},
		"the tunnel's own port":    {tls.RequireAndVerifyClientCert, []string{"gateway.example.com", "192.0.2.1", "::1", "*.example.com"}, true},
		"nobody asked":             {tls.NoClientCert, []string{"localhost"}, false},
		"asked, not verified":      {tls.RequestClientCert, []string{"localhost"}, false},
		"required, not verified":   {tls.RequireAnyClientCert, []string{"localhost"}, false},
		"no name":                  {tls.VerifyClientCertIfGiven, nil, false},
		"an empty name":            {tls.VerifyClientCertIfGiven, []string{""}, false},
		"a URL":                    {tls.VerifyClientCertIfGiven, []string{"https://gateway.example.com"}, false},
		"a name with a port":       {tls.VerifyClientCertIfGiven, []string{"gateway.example.com:443"}, false},
		"a name in upper case":     {tls.VerifyClientCertIfGiven, []string{"Gateway.example.com"}, false},
		"a wildcard for the whole": {tls.VerifyClientCertIfGiven, []string{"*"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := a.ServerTLS(c.clients, c.names...)
			if !c.ok {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.clients, config.ClientAuth)
			require.EqualValues(t, tls.VersionTLS13, config.MinVersion)
			require.True(t, config.SessionTicketsDisabled)
			cert, err := config.GetCertificate(nil)
			require.NoError(t, err)
			for _, name := range c.names {
				if name[0] != '*' {
					require.NoError(t, cert.Leaf.VerifyHostname(name))
				}
			}
			require.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, cert.Leaf.ExtKeyUsage)
			require.Equal(t, a.Certificate.Raw, cert.Certificate[1], "so that it can be pinned")
		})
	}
}

func TestTheGatewaysCertificateRenewsWhileItRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, _ := newAuthority(t)
		config, err := a.ServerTLS(tls.RequireAndVerifyClientCert, "localhost")
		require.NoError(t, err)
		get := func() *x509.Certificate {
			cert, err := config.GetCertificate(nil)
			require.NoError(t, err)
			return cert.Leaf
		}
		first := get()
		time.Sleep(59 * day)
		require.Equal(t, first, get())
		for range 10 {
			before := get()
			time.Sleep(61 * day)
			now := get()
			require.NotEqual(t, before.SerialNumber, now.SerialNumber)
			require.Equal(t, first.PublicKey, now.PublicKey, "pins of the key hold")
			require.Greater(t, time.Until(now.NotAfter), 30*day)
		}
	})
}

// A signer that is away for a while is asked once a minute, and the certificate
// that is there is served as long as it lasts.
func TestTheGatewayOutlivesAFailureOfItsSigner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, log := newAuthority(t)
		kms := &awaySigner{Signer: a.Signer}
		a.Signer = kms
		config, err := a.ServerTLS(tls.RequireAndVerifyClientCert, "localhost")
		require.NoError(t, err)
		first, err := config.GetCertificate(nil)
		require.NoError(t, err)
		time.Sleep(61 * day)
		kms.away = true
		for range 100 {
			cert, err := config.GetCertificate(nil)
			require.NoError(t, err)
			require.Same(t, first, cert)
		}
		require.Equal(t, 1, kms.asked)
		require.Contains(t, log.String(), "the KMS is away")
		kms.away = false
		time.Sleep(time.Minute)
		fresh, err := config.GetCertificate(nil)
		require.NoError(t, err)
		require.NotSame(t, first, fresh)
	})
}

type awaySigner struct {
	crypto.Signer
	away  bool
	asked int
}

func (s *awaySigner) Sign(r io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if s.away {
		s.asked++
		return nil, errors.New("the KMS is away")
	}
	return s.Signer.Sign(r, digest, opts)
}

func TestAuthorityNeedsWhatItSays(t *testing.T) {
	good, _ := newAuthority(t)
	other, _ := newAuthority(t)
	leaf := enroll(t, good, "edge").Certificate()
	for name, change := range map[string]func(*pki.Authority){
		"a signer":                   func(a *pki.Authority) { a.Signer = nil },
		"a certificate":              func(a *pki.Authority) { a.Certificate = nil },
		"a store":                    func(a *pki.Authority) { a.Store = nil },
		"the signer's certificate":   func(a *pki.Authority) { a.Certificate = other.Certificate },
		"a CA's certificate":         func(a *pki.Authority) { a.Certificate, a.Signer = leaf.Leaf, leaf.PrivateKey.(crypto.Signer) },
		"a trust domain that is one": func(a *pki.Authority) { a.TrustDomain = "Example.com/x" },
		"a lifetime that is one":     func(a *pki.Authority) { a.Lifetime = -1 },
		"a lifetime to renew in":     func(a *pki.Authority) { a.Lifetime = time.Second },
		"a TTL that is one":          func(a *pki.Authority) { a.MaxGrantTTL = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			a := &pki.Authority{Signer: good.Signer, Certificate: good.Certificate, Store: good.Store}
			change(a)
			_, err := a.Grant(t.Context(), pki.Grant{})
			require.Error(t, err)
			_, err = a.Register(t.Context(), registration(t))
			require.Error(t, err)
			require.Error(t, a.Verify(t.Context(), leaf.Leaf))
			_, err = a.ServerTLS(tls.RequireAndVerifyClientCert, "localhost")
			require.Error(t, err)
		})
	}
}

func TestNoCertificateOutlivesTheAuthority(t *testing.T) {
	a, _ := newAuthority(t)
	a.Lifetime = 50 * 365 * day
	require.Equal(t, a.Certificate.NotAfter, enroll(t, a, "edge").Status().NotAfter)
}
