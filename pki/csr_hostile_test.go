package pki_test

import (
	"bytes"
	"crypto"
	"crypto/dsa" //nolint:staticcheck // the test makes what must be refused
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// requestInfo is what is signed in a signing request (RFC 2986, 4.1).
type requestInfo struct {
	Version    int
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Attributes asn1.RawValue
}

// forge changes what a good request says and signs that.
func forge(t testing.TB, key *ecdsa.PrivateKey, change func(*requestInfo)) []byte {
	t.Helper()
	return forgeSigned(t, key, change, func([]byte, *certificationRequest) {})
}

// forgeSigned may also change what stands around it.
func forgeSigned(t testing.TB, key *ecdsa.PrivateKey, change func(*requestInfo), after func(info []byte, r *certificationRequest)) []byte {
	t.Helper()
	var request certificationRequest
	_, err := asn1.Unmarshal(csrOf(t, key), &request)
	require.NoError(t, err)
	var info requestInfo
	_, err = asn1.Unmarshal(request.TBS.FullBytes, &info)
	require.NoError(t, err)
	change(&info)
	der, err := asn1.Marshal(info)
	require.NoError(t, err)
	digest := sha256.Sum256(der)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	require.NoError(t, err)
	request.TBS = asn1.RawValue{FullBytes: der}
	request.Signature = asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}
	after(der, &request)
	der, err = asn1.Marshal(request)
	require.NoError(t, err)
	return der
}

func marshal(t testing.TB, v any) asn1.RawValue {
	t.Helper()
	der, err := asn1.Marshal(v)
	require.NoError(t, err)
	return asn1.RawValue{FullBytes: der}
}

// spki writes a public key with parameters and bits that are made up.
func spki(t testing.TB, algorithm asn1.ObjectIdentifier, parameters any, bits []byte) asn1.RawValue {
	t.Helper()
	type info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	value := info{Algorithm: pkix.AlgorithmIdentifier{Algorithm: algorithm}, Key: asn1.BitString{Bytes: bits, BitLength: 8 * len(bits)}}
	if parameters != nil {
		value.Algorithm.Parameters = marshal(t, parameters)
	}
	return marshal(t, value)
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value []any `asn1:"set"`
}

// attributes is the field of that name of a request.
func attributes(t testing.TB, all ...asn1.RawValue) asn1.RawValue {
	t.Helper()
	var content []byte
	for _, a := range all {
		content = append(content, a.FullBytes...)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: content}
}

func extensionRequest(t testing.TB, extensions ...pkix.Extension) asn1.RawValue {
	t.Helper()
	return marshal(t, struct {
		Type  asn1.ObjectIdentifier
		Value [][]pkix.Extension `asn1:"set"`
	}{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}, [][]pkix.Extension{extensions}})
}

var (
	ecKey      = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}
	p256Curve  = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	rsaKeyOID  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	ed25519OID = asn1.ObjectIdentifier{1, 3, 101, 112}
	sanOID     = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// Whoever crafts a request by hand gets the template for the key that it proves,
// or nothing.
func TestHostileSigningRequests(t *testing.T) {
	key := newKey(t)
	point, err := key.PublicKey.Bytes()
	require.NoError(t, err)
	set := func(field func(*requestInfo) *asn1.RawValue, to asn1.RawValue) []byte {
		return forge(t, key, func(i *requestInfo) { *field(i) = to })
	}
	publicKey := func(i *requestInfo) *asn1.RawValue { return &i.PublicKey }
	subject := func(i *requestInfo) *asn1.RawValue { return &i.Subject }
	attrs := func(i *requestInfo) *asn1.RawValue { return &i.Attributes }
	around := func(after func(info []byte, r *certificationRequest)) []byte {
		return forgeSigned(t, key, func(*requestInfo) {}, after)
	}
	admin := pkix.Extension{Id: sanOID, Value: marshal(t, []asn1.RawValue{{Class: 2, Tag: 6, Bytes: []byte("outgate://outgate/agent/admin")}}).FullBytes}
	many := make([]pkix.Extension, 400)
	for i := range many {
		many[i] = pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, i}, Value: []byte{5, 0}}
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)

	for name, c := range map[string]struct {
		csr     []byte
		refused bool
	}{
		// The key.
		"a point at infinity":           {set(publicKey, spki(t, ecKey, p256Curve, []byte{0})), true},
		"a point off the curve":         {set(publicKey, spki(t, ecKey, p256Curve, offCurve(point))), true},
		"a compressed point":            {set(publicKey, spki(t, ecKey, p256Curve, compressed(point))), true},
		"half a point":                  {set(publicKey, spki(t, ecKey, p256Curve, point[:33])), true},
		"coordinates beyond the field":  {set(publicKey, spki(t, ecKey, p256Curve, slices.Concat([]byte{4}, bytes.Repeat([]byte{0xff}, 64)))), true},
		"no curve":                      {set(publicKey, spki(t, ecKey, nil, point)), true},
		"a curve nobody knows":          {set(publicKey, spki(t, ecKey, asn1.ObjectIdentifier{1, 3, 132, 0, 10}, point)), true}, // secp256k1
		"a curve of its own parameters": {set(publicKey, spki(t, ecKey, []int{1, 2, 3}, point)), true},
		"a key of no known kind":        {set(publicKey, spki(t, asn1.ObjectIdentifier{1, 3, 101, 113}, nil, make([]byte, 57))), true}, // Ed448
		"a key that cannot sign":        {set(publicKey, spki(t, asn1.ObjectIdentifier{1, 3, 101, 110}, nil, make([]byte, 32))), true}, // X25519
		"half an Ed25519 key":           {set(publicKey, spki(t, ed25519OID, nil, make([]byte, 16))), true},
		"somebody else's Ed25519 key":   {set(publicKey, spki(t, ed25519OID, nil, edKey.Public().(ed25519.PublicKey))), true},
		"an RSA key of modulus zero":    {set(publicKey, spki(t, rsaKeyOID, asn1.NullRawValue, rsaBits(t, big.NewInt(0), 65537))), true},
		"an RSA key of 512 bits":        {set(publicKey, spki(t, rsaKeyOID, asn1.NullRawValue, rsaBits(t, new(big.Int).Lsh(big.NewInt(1), 511), 65537))), true},
		"a DSA key":                     {set(publicKey, dsaSPKI(t)), true},
		"a key and more behind it":      {set(publicKey, asn1.RawValue{FullBytes: append(spki(t, ecKey, p256Curve, point).FullBytes, 5, 0)}), true},
		"a point and more behind it":    {set(publicKey, spki(t, ecKey, p256Curve, append(bytes.Clone(point), 0))), true},
		"somebody else's key":           {set(publicKey, asn1.RawValue{FullBytes: newKeySPKI(t)}), true},
		// The signature.
		"no signature":                   {around(func(_ []byte, r *certificationRequest) { r.Signature = asn1.BitString{} }), true},
		"a signature of zeros":           {around(func(_ []byte, r *certificationRequest) { r.Signature = bitString(marshal(t, []int{0, 0}).FullBytes) }), true},
		"a signature of ones":            {around(func(_ []byte, r *certificationRequest) { r.Signature = bitString(marshal(t, []int{1, 1}).FullBytes) }), true},
		"its signature, mirrored":        {around(func(_ []byte, r *certificationRequest) { r.Signature = bitString(mirrored(t, r.Signature.Bytes)) }), false},
		"a signature and more behind it": {around(func(_ []byte, r *certificationRequest) { r.Signature = bitString(append(r.Signature.Bytes, 0)) }), true},
		"an algorithm of another kind": {around(func(_ []byte, r *certificationRequest) {
			r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11} // sha256WithRSA
		}), true},
		"an algorithm nobody knows": {around(func(_ []byte, r *certificationRequest) { r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 3} }), true},
		"a signature by MD5": {around(func(_ []byte, r *certificationRequest) {
			r.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 4}
		}), true},
		// The rest.
		"version 7":                   {forge(t, key, func(i *requestInfo) { i.Version = 7 }), false},
		"version -1":                  {forge(t, key, func(i *requestInfo) { i.Version = -1 }), false},
		"a subject that is a number":  {set(subject, marshal(t, 7)), true},
		"a subject of sets of sets":   {set(subject, marshal(t, [][][]int{{{1}}})), true},
		"a password to be challenged": {set(attrs, attributes(t, marshal(t, attribute{asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}, []any{"secret"}}))), false},
		"attributes that are none":    {set(attrs, attributes(t, marshal(t, "not an attribute"))), false},
		"two lists of extensions":     {set(attrs, attributes(t, extensionRequest(t, admin), extensionRequest(t, admin))), true},
		"an extension twice":          {set(attrs, attributes(t, extensionRequest(t, admin, admin))), true},
		"400 extensions":              {set(attrs, attributes(t, extensionRequest(t, many...))), false},
		"names that are no names":     {set(attrs, attributes(t, extensionRequest(t, pkix.Extension{Id: sanOID, Value: []byte{0xff}}))), true},
		"a name with a NUL": {set(attrs, attributes(t, extensionRequest(t, pkix.Extension{Id: sanOID, Value: marshal(t, []asn1.RawValue{
			{Class: 2, Tag: 2, Bytes: []byte("gateway\x00.evil")},
		}).FullBytes}))), false},
		"the request in PEM":               {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csrOf(t, key)}), true},
		"lengths longer than they need be": {longForm(csrOf(t, key)), true},
	} {
		t.Run(name, func(t *testing.T) {
			a, _ := newAuthority(t)
			credential, err := a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: c.csr})
			if c.refused {
				requireRefused(t, err)
				require.Empty(t, certificatesOf(t, a, ""))
				return
			}
			require.NoError(t, err)
			requireTemplate(t, a, leafOf(t, credential), "edge", key.Public())
		})
	}
}

func bitString(b []byte) asn1.BitString { return asn1.BitString{Bytes: b, BitLength: 8 * len(b)} }

func offCurve(point []byte) []byte {
	off := bytes.Clone(point)
	off[len(off)-1] ^= 1
	return off
}

// compressed writes one coordinate and the sign of the other (SEC 1, 2.3.3).
func compressed(point []byte) []byte {
	return append([]byte{2 | point[len(point)-1]&1}, point[1:33]...)
}

func rsaBits(t testing.TB, n *big.Int, e int) []byte {
	t.Helper()
	return marshal(t, struct {
		N *big.Int
		E int
	}{n, e}).FullBytes
}

func newKeySPKI(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(newKey(t).Public())
	require.NoError(t, err)
	return der
}

func dsaSPKI(t testing.TB) asn1.RawValue {
	t.Helper()
	p := dsa.Parameters{P: big.NewInt(23), Q: big.NewInt(11), G: big.NewInt(4)}
	return spki(t, asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, p, marshal(t, 8).FullBytes)
}

// mirrored is the other signature that is as good: s and n-s both are.
func mirrored(t testing.TB, signature []byte) []byte {
	t.Helper()
	var rs struct{ R, S *big.Int }
	_, err := asn1.Unmarshal(signature, &rs)
	require.NoError(t, err)
	rs.S.Sub(elliptic.P256().Params().N, rs.S)
	return marshal(t, rs).FullBytes
}

// longForm writes the outermost length in one byte more than it needs.
func longForm(der []byte) []byte {
	var content asn1.RawValue
	if _, err := asn1.Unmarshal(der, &content); err != nil {
		panic(err)
	}
	n := len(content.Bytes)
	return append([]byte{0x30, 0x83, 0, byte(n >> 8), byte(n)}, content.Bytes...)
}

func TestRSAKeysAreAnOption(t *testing.T) {
	for name, c := range map[string]struct {
		bits int
		ok   bool
	}{"2048": {2048, true}, "3072": {3072, true}, "1024": {1024, false}} {
		t.Run(name, func(t *testing.T) {
			key, err := rsa.GenerateKey(rand.Reader, c.bits)
			require.NoError(t, err)
			a, _ := newAuthority(t)
			r := pki.Registration{Token: grant(t, a, pki.Grant{Agent: "edge"}), CSR: csrOf(t, key)}
			_, err = a.Register(t.Context(), r)
			requireRefused(t, err)

			a = &pki.Authority{Signer: a.Signer, Certificate: a.Certificate, Store: a.Store, AllowRSA: true}
			got, err := a.Register(t.Context(), r)
			if !c.ok {
				requireRefused(t, err)
				return
			}
			require.NoError(t, err)
			requireTemplate(t, a, leafOf(t, got), "edge", key.Public())
		})
	}
	t.Run("signed in other ways", func(t *testing.T) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		require.NoError(t, err)
		for algorithm, ok := range map[x509.SignatureAlgorithm]bool{
			x509.SHA256WithRSA: true, x509.SHA384WithRSA: true, x509.SHA512WithRSA: true,
			x509.SHA256WithRSAPSS: true, x509.SHA512WithRSAPSS: true, x509.SHA1WithRSA: false,
		} {
			a, _ := newAuthority(t)
			a.AllowRSA = true
			csr, err := signedBy(t, key, algorithm)
			require.NoError(t, err)
			_, err = a.Register(t.Context(), pki.Registration{Token: grant(t, a, pki.Grant{}), CSR: csr})
			if ok {
				require.NoError(t, err, algorithm)
			} else {
				requireRefused(t, err)
			}
		}
	})
}

// signedBy makes a request with an algorithm, also one that x509 no longer signs with.
func signedBy(t testing.TB, key *rsa.PrivateKey, algorithm x509.SignatureAlgorithm) ([]byte, error) {
	t.Helper()
	if algorithm != x509.SHA1WithRSA {
		return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{SignatureAlgorithm: algorithm}, key)
	}
	var request certificationRequest
	if _, err := asn1.Unmarshal(csrOf(t, key), &request); err != nil {
		return nil, err
	}
	request.Algorithm.Algorithm = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 5}
	h := crypto.SHA1.New()
	h.Write(request.TBS.FullBytes)
	signature, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA1, h.Sum(nil))
	if err != nil {
		return nil, err
	}
	request.Signature = bitString(signature)
	return asn1.Marshal(request)
}
