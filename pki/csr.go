package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
)

// maxCSR is generous: a request with a P-384 key and no extensions has some 300
// bytes.
const maxCSR = 16 << 10

// Sizes of RSA keys, in bits.
const (
	minRSA = 2048
	maxRSA = 8192
)

// publicKey takes the public key out of a certificate signing request, and
// nothing else, once the request proves that its sender holds the private key.
func publicKey(csr []byte, allowRSA bool) (crypto.PublicKey, error) {
	if len(csr) > maxCSR {
		return nil, fmt.Errorf("signing request of %d bytes; at most %d", len(csr), maxCSR)
	}
	req, err := x509.ParseCertificateRequest(csr)
	if err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	if key, isRSA := req.PublicKey.(*rsa.PublicKey); isRSA && allowRSA {
		err = checkRSA(key)
	} else {
		err = checkKey(req.PublicKey)
	}
	if err != nil {
		return nil, err
	}
	switch req.SignatureAlgorithm {
	case x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512, x509.PureEd25519,
		x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA,
		x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS, x509.SHA512WithRSAPSS:
	default: // crypto/x509 would let SHA-1 pass here
		return nil, fmt.Errorf("signing request is signed with %s", req.SignatureAlgorithm)
	}
	if err := req.CheckSignature(); err != nil {
		return nil, fmt.Errorf("signing request: %w", err)
	}
	return req.PublicKey, nil
}

func checkKey(key crypto.PublicKey) error {
	switch key := key.(type) {
	case *ecdsa.PublicKey:
		if key.Curve == elliptic.P256() || key.Curve == elliptic.P384() {
			return nil
		}
		return fmt.Errorf("key on curve %s; use P-256, P-384 or Ed25519", key.Params().Name)
	case ed25519.PublicKey:
		return nil
	}
	return fmt.Errorf("key of type %T; use P-256, P-384 or Ed25519", key)
}

// checkRSA bounds what verifying with the key costs, too.
func checkRSA(key *rsa.PublicKey) error {
	if bits := key.N.BitLen(); bits < minRSA || bits > maxRSA {
		return fmt.Errorf("RSA key of %d bits; use %d to %d", bits, minRSA, maxRSA)
	}
	if key.E != 65537 {
		return fmt.Errorf("RSA key with exponent %d; use 65537", key.E)
	}
	return nil
}

// keyHash names a public key: the SHA-256 of its one canonical encoding, however
// the request had spelled it.
func keyHash(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(der)
	return sum[:], nil
}

func sameKey(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

// newKey makes an agent's or an authority's key.
func newKey() (*ecdsa.PrivateKey, error) {
	return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
}

// newCSR makes a signing request that says nothing but the key.
func newCSR(key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
}

func parseKey(der []byte) (crypto.Signer, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("private key cannot sign")
	}
	return signer, checkKey(signer.Public())
}
