package pki

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	caLifetime = 10 * 365 * 24 * time.Hour

	caKeyFile  = "ca.key"
	caCertFile = "ca.crt"
)

// NewCA makes the key (P-256) and the certificate (valid for ten years) of an
// authority. name is for people, such as the trust domain.
func NewCA(name string) (crypto.Signer, *x509.Certificate, error) {
	key, err := newKey()
	if err != nil {
		return nil, nil, fmt.Errorf("pki: new CA: %w", err)
	}
	cert, err := selfSign(key, name)
	if err != nil {
		return nil, nil, fmt.Errorf("pki: new CA: %w", err)
	}
	return key, cert, nil
}

// LoadOrCreateCA reads an authority's key and certificate from the files ca.key
// (PKCS #8, PEM) and ca.crt (PEM) in dir, a directory as that of
// [OpenFileStorage], and makes them at the first start. Two processes that start
// at the same time get the same authority, or one of them an error that matches
// [ErrLocked].
//
// A certificate without its key is an error: to make another key would lock out
// every agent.
func LoadOrCreateCA(ctx context.Context, dir, name string) (crypto.Signer, *x509.Certificate, error) {
	storage, err := OpenFileStorage(dir)
	if err != nil {
		return nil, nil, err
	}
	defer storage.Close()
	signer, cert, err := loadOrCreateCA(ctx, storage, name)
	if err != nil {
		return nil, nil, fmt.Errorf("pki: authority in %s: %w", dir, err)
	}
	return signer, cert, nil
}

func loadOrCreateCA(ctx context.Context, s Storage, name string) (crypto.Signer, *x509.Certificate, error) {
	key, keyErr := loadPEM(ctx, s, caKeyFile, "PRIVATE KEY")
	if keyErr != nil && !errors.Is(keyErr, fs.ErrNotExist) {
		return nil, nil, keyErr
	}
	der, certErr := loadPEM(ctx, s, caCertFile, "CERTIFICATE")
	if certErr != nil && !errors.Is(certErr, fs.ErrNotExist) {
		return nil, nil, certErr
	}
	if keyErr != nil && certErr == nil {
		return nil, nil, fmt.Errorf("%s is there and %s is not: restore the key, or remove both to begin anew", caCertFile, caKeyFile)
	}
	signer, err := loadOrCreateKey(ctx, s, key)
	if err != nil {
		return nil, nil, err
	}
	if certErr != nil { // a crash came between the two files; nothing was issued yet
		cert, err := selfSign(signer, name)
		if err != nil {
			return nil, nil, err
		}
		return signer, cert, savePEM(ctx, s, caCertFile, "CERTIFICATE", cert.Raw)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", caCertFile, err)
	}
	if !sameKey(cert.PublicKey, signer.Public()) {
		return nil, nil, fmt.Errorf("%s is not for the key in %s", caCertFile, caKeyFile)
	}
	return signer, cert, nil
}

func loadOrCreateKey(ctx context.Context, s Storage, der []byte) (crypto.Signer, error) {
	if der != nil {
		signer, err := parseKey(der)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", caKeyFile, err)
		}
		return signer, nil
	}
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	if der, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return key, savePEM(ctx, s, caKeyFile, "PRIVATE KEY", der)
}

func selfSign(key crypto.Signer, name string) (*x509.Certificate, error) {
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{CommonName: "outgate authority " + name},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(caLifetime),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true, // it signs agents and gateways, no other authority
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func loadPEM(ctx context.Context, s Storage, name, kind string) ([]byte, error) {
	data, err := s.Load(ctx, name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: no PEM block of type %q", name, kind)
	}
	return block.Bytes, nil
}

func savePEM(ctx context.Context, s Storage, name, kind string, der []byte) error {
	return s.Save(ctx, name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
