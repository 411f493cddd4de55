package pki

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"testing"
)

func FuzzPublicKey(f *testing.F) {
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range []any{p384, ed} {
		csr, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(csr)
	}
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, csr []byte) {
		if _, err := publicKey(csr, false); err != nil {
			if key, err := publicKey(csr, true); err == nil {
				if key, ok := key.(*rsa.PublicKey); !ok || key.N.BitLen() < 2048 {
					t.Errorf("the option accepts a %T", key)
				}
			}
			return
		}
		key, err := publicKey(csr, true)
		if err != nil {
			t.Fatalf("the option to accept more refuses: %v", err)
		}
		switch key := key.(type) {
		case *ecdsa.PublicKey:
			if key.Curve != elliptic.P256() && key.Curve != elliptic.P384() {
				t.Errorf("accepted a key on %s", key.Params().Name)
			}
		case ed25519.PublicKey:
		default:
			t.Errorf("accepted a %T", key)
		}
		if _, err := keyHash(key); err != nil {
			t.Errorf("accepted a key that cannot be written out: %v", err)
		}
	})
}
