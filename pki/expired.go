package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
)

// A certificate that has ended gets through no TLS handshake. Its agent sends it
// in the request instead, with a signature by its key over the signing request.
// Whoever replays that gets a certificate for a key that he does not have.
const proofContext = "outgate renewal of an expired certificate 1\x00"

// expiredProof stands for the client certificate of a renewal.
type expiredProof struct {
	Certificate []byte `json:"certificate"` // DER
	Signature   []byte `json:"signature"`   // over proofContext and the CSR
}

// proveExpired makes the proof with the certificate and the key that config
// would present.
func proveExpired(config *tls.Config, csr []byte) (*expiredProof, error) {
	cert, err := clientCertificate(config)
	if err != nil {
		return nil, err
	}
	key, ok := cert.PrivateKey.(crypto.Signer)
	if !ok || len(cert.Certificate) == 0 {
		return nil, errors.New("there is no key to prove an expired certificate with")
	}
	message := append([]byte(proofContext), csr...)
	var opts crypto.SignerOpts = crypto.Hash(0)
	if _, whole := key.Public().(ed25519.PublicKey); !whole {
		digest := sha256.Sum256(message)
		message, opts = digest[:], crypto.SHA256
	}
	signature, err := key.Sign(rand.Reader, message, opts)
	if err != nil {
		return nil, err
	}
	return &expiredProof{Certificate: cert.Certificate[0], Signature: signature}, nil
}

func clientCertificate(config *tls.Config) (*tls.Certificate, error) {
	if config.GetClientCertificate != nil {
		return config.GetClientCertificate(&tls.CertificateRequestInfo{Version: tls.VersionTLS13})
	}
	if len(config.Certificates) == 0 {
		return nil, errors.New("no client certificate")
	}
	return &config.Certificates[0], nil
}

// verify returns the certificate if its key has signed csr. Whether anybody
// should believe the certificate is for the registrar to say.
func (p *expiredProof) verify(csr []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(p.Certificate)
	if err != nil {
		return nil, err
	}
	var algorithm x509.SignatureAlgorithm
	switch key := cert.PublicKey.(type) {
	case *ecdsa.PublicKey:
		algorithm = x509.ECDSAWithSHA256
	case ed25519.PublicKey:
		algorithm = x509.PureEd25519
	case *rsa.PublicKey:
		algorithm = x509.SHA256WithRSA
	default:
		return nil, fmt.Errorf("key is a %T", key)
	}
	return cert, cert.CheckSignature(algorithm, append([]byte(proofContext), csr...), p.Signature)
}
