package mem

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"time"
)

// addr is a host:port that exists in this process only. The port of a dialing
// side is the number of its connection.
type addr string

func (addr) Network() string  { return "mem" }
func (a addr) String() string { return string(a) }

// certificate makes up what a verified certificate of name says. The serial
// number follows from the name, so that a name keeps its certificate.
func certificate(name string, usage x509.ExtKeyUsage) *x509.Certificate {
	sum := sha256.Sum256([]byte(name))
	return &x509.Certificate{
		Version:      3,
		SerialNumber: new(big.Int).SetBytes(sum[:16]),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Unix(0, 0).UTC(),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280 4.1.2.5: no expiry
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{usage},
	}
}

// tlsState is the state of a connection whose peer proved that it owns peer.
func tlsState(peer *x509.Certificate, serverName string) tls.ConnectionState {
	return tls.ConnectionState{
		Version:           tls.VersionTLS13,
		HandshakeComplete: true,
		CipherSuite:       tls.TLS_AES_128_GCM_SHA256,
		ServerName:        serverName,
		PeerCertificates:  []*x509.Certificate{peer},
		VerifiedChains:    [][]*x509.Certificate{{peer}},
	}
}
