package pki_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

const somePin = "sha256:0011223344556677889900112233445566778899001122334455667788990011"

func TestParsePin(t *testing.T) {
	for name, c := range map[string]struct {
		in string
		ok bool
	}{
		"lower case":                {somePin, true},
		"upper-case digits":         {"sha256:" + strings.ToUpper(somePin[7:]), true},
		"nothing":                   {"", false},
		"no prefix":                 {somePin[7:], false},
		"upper-case prefix":         {"SHA256:" + somePin[7:], false},
		"another hash":              {"sha512:" + somePin[7:], false},
		"63 digits":                 {somePin[:70], false},
		"65 digits":                 {somePin + "0", false},
		"no hex":                    {somePin[:70] + "g", false},
		"space around":              {" " + somePin, false},
		"the hash of nothing":       {"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", false},
		"the hash of NOTHING":       {"sha256:E3B0C44298FC1C149AFBF4C8996FB92427AE41E4649B934CA495991B7852B855", false},
		"all zeros":                 {"sha256:" + strings.Repeat("0", 64), false},
		"base64, as in HTTP's pins": {"sha256:" + strings.Repeat("A", 43) + "=", false},
	} {
		t.Run(name, func(t *testing.T) {
			pin, err := pki.ParsePin(c.in)
			if !c.ok {
				require.Error(t, err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, somePin, pin.String())
		})
	}
}

func TestPinIsReadFromConfiguration(t *testing.T) {
	var config struct{ Pins []pki.Pin }
	require.NoError(t, json.Unmarshal([]byte(`{"Pins":["`+somePin+`"]}`), &config))
	again, err := json.Marshal(config)
	require.NoError(t, err)
	require.JSONEq(t, `{"Pins":["`+somePin+`"]}`, string(again))
}

func FuzzParsePin(f *testing.F) {
	f.Add(somePin)
	f.Add("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
	f.Add("sha256:")
	f.Fuzz(func(t *testing.T, s string) {
		pin, err := pki.ParsePin(s)
		if err != nil {
			return
		}
		if !strings.EqualFold(pin.String(), s) {
			t.Errorf("%q is read as %s", s, pin)
		}
		if again, err := pki.ParsePin(pin.String()); err != nil || again != pin {
			t.Errorf("%s is not read back: %v", pin, err)
		}
	})
}

// chainOf is a server certificate with its chain, made to order.
type chainOf struct {
	names   []string
	usage   x509.ExtKeyUsage
	expired bool
	rootCA  bool // whether the issuer is marked as a CA
}

// make returns the TLS certificate, leaf first, and the issuer.
func (c chainOf) make(t *testing.T) (tls.Certificate, *x509.Certificate) {
	t.Helper()
	issuer := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "issuer"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: c.rootCA, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "gateway"},
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: c.names, ExtKeyUsage: []x509.ExtKeyUsage{c.usage}, KeyUsage: x509.KeyUsageDigitalSignature,
	}
	if c.expired {
		leaf.NotAfter = time.Now().Add(-time.Hour)
	}
	issuerKey, leafKey := newKey(t), newKey(t)
	if !c.rootCA {
		issuer.KeyUsage = x509.KeyUsageDigitalSignature
	}
	issuerCert := issue(t, issuer, issuer, issuerKey, issuerKey)
	leafCert := issue(t, leaf, issuerCert, leafKey, issuerKey)
	return tls.Certificate{
		Certificate: [][]byte{leafCert.Raw, issuerCert.Raw}, PrivateKey: leafKey, Leaf: leafCert,
	}, issuerCert
}

func issue(t *testing.T, template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return cert
}

func TestAPinAdmitsItsServerAndNoOther(t *testing.T) {
	fine := chainOf{names: []string{"localhost"}, usage: x509.ExtKeyUsageServerAuth, rootCA: true}
	for name, c := range map[string]struct {
		chain  chainOf
		pin    string // "leaf", "issuer", "other" or two of them
		ok     bool
		reason string
	}{
		"the pin of its own key":            {fine, "leaf", true, ""},
		"the pin of its authority":          {fine, "issuer", true, ""},
		"one pin of two":                    {fine, "other issuer", true, ""},
		"the pin of another":                {fine, "other", false, "SPKI pin mismatch"},
		"another host name":                 {chainOf{[]string{"elsewhere"}, fine.usage, false, true}, "leaf", false, "localhost"},
		"another host name, authority":      {chainOf{[]string{"elsewhere"}, fine.usage, false, true}, "issuer", false, "localhost"},
		"expired":                           {chainOf{fine.names, fine.usage, true, true}, "leaf", false, "expired"},
		"a client's certificate":            {chainOf{fine.names, x509.ExtKeyUsageClientAuth, false, true}, "leaf", false, "usage"},
		"an issuer that is no authority":    {chainOf{fine.names, fine.usage, false, false}, "issuer", false, "certificate"},
		"a client's certificate, authority": {chainOf{fine.names, x509.ExtKeyUsageClientAuth, false, true}, "issuer", false, "usage"},
	} {
		t.Run(name, func(t *testing.T) {
			cert, issuer := c.chain.make(t)
			served := false
			base := serveWith(t, &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS13},
				http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
					served = true
					w.WriteHeader(http.StatusTeapot)
				}))
			pins := map[string]pki.Pin{"leaf": pki.PinOf(cert.Leaf), "issuer": pki.PinOf(issuer)}
			other, err := pki.ParsePin(somePin)
			require.NoError(t, err)
			pins["other"] = other
			client := &pki.Client{Gateway: localhost(base)}
			for p := range strings.FieldsSeq(c.pin) {
				client.Pins = append(client.Pins, pins[p])
			}
			_, err = client.Register(t.Context(), registration(t))
			require.Error(t, err)
			require.Equal(t, c.ok, served, err)
			require.Contains(t, err.Error(), c.reason)

			var mismatch *pki.PinError
			if c.pin == "other" {
				require.ErrorAs(t, err, &mismatch)
				require.Equal(t, []pki.Pin{pins["leaf"], pins["issuer"]}, mismatch.Seen)
				require.Contains(t, err.Error(), pins["leaf"].String())
				require.Contains(t, err.Error(), "expected "+somePin)
			} else {
				require.NotErrorAs(t, err, &mismatch)
			}
		})
	}
}

// A certificate that merely carries the authority's public key proves nothing:
// who made it cannot sign for that key.
func TestAForgedAuthorityWithThePinnedKeyIsRefused(t *testing.T) {
	_, pinned := chainOf{rootCA: true}.make(t)
	mallory := newKey(t)
	forged := issue(t, &x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pinned.Subject, NotBefore: pinned.NotBefore, NotAfter: pinned.NotAfter,
		DNSNames: []string{"localhost"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &x509.Certificate{Subject: pinned.Subject}, mallory, mallory)
	base := serveWith(t, &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{forged.Raw, pinned.Raw}, PrivateKey: mallory}},
	}, http.NotFoundHandler())
	client := &pki.Client{Gateway: localhost(base), Pins: []pki.Pin{pki.PinOf(pinned)}}
	_, err := client.Register(t.Context(), registration(t))
	require.ErrorContains(t, err, "does not hold")
}

func TestPinsThatMeanNothingAreRefused(t *testing.T) {
	client := &pki.Client{Gateway: "https://localhost:1", Pins: []pki.Pin{{}}}
	_, err := client.Register(t.Context(), registration(t))
	require.ErrorContains(t, err, "all zeros")
}

func registration(t testing.TB) pki.Registration {
	t.Helper()
	token, err := pki.ParseToken(goodID + "." + goodSecret)
	require.NoError(t, err)
	return pki.Registration{Token: token, CSR: csrOf(t, newKey(t))}
}

// localhost names a test server the way that SNI allows.
func localhost(base string) string {
	_, port, _ := net.SplitHostPort(strings.TrimPrefix(base, "https://"))
	return "https://localhost:" + port
}

// A resumed session shows no certificate anew. The pins hold for it all the same.
func TestPinsHoldForAResumedSession(t *testing.T) {
	cert, issuer := chainOf{names: []string{"localhost"}, usage: x509.ExtKeyUsageServerAuth, rootCA: true}.make(t)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}})
	require.NoError(t, err)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte("x")) // and the tickets before it
			_ = conn.Close()
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	sessions := tls.NewLRUClientSessionCache(1)
	dial := func(pin pki.Pin) (resumed bool, err error) {
		config, err := pki.PinnedTLS([]pki.Pin{pin}, "localhost")
		require.NoError(t, err)
		config.ClientSessionCache = sessions
		conn, err := tls.Dial("tcp", listener.Addr().String(), config)
		if err != nil {
			return false, err
		}
		defer conn.Close()
		_, err = conn.Read(make([]byte, 1))
		return conn.ConnectionState().DidResume, err
	}
	good := pki.PinOf(issuer)
	resumed, err := dial(good)
	require.NoError(t, err)
	require.False(t, resumed)
	resumed, err = dial(good)
	require.NoError(t, err)
	require.True(t, resumed)
	_, err = dial(pki.PinOf(issue(t, &x509.Certificate{SerialNumber: big.NewInt(9)}, &x509.Certificate{}, newKey(t), newKey(t))))
	var mismatch *pki.PinError
	require.ErrorAs(t, err, &mismatch)
}
