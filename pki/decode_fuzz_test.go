package pki

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// fuzzIdentity is an identity as it is stored, and its key.
func fuzzIdentity(f *testing.F) ([]byte, *Identity) {
	f.Helper()
	signer, cert, err := NewCA("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	a := &Authority{Signer: signer, Certificate: cert, Store: new(MemoryStore)}
	token, err := a.Grant(context.Background(), Grant{Agent: "edge"})
	if err != nil {
		f.Fatal(err)
	}
	storage := new(MemoryStorage)
	identity, err := Enroll(context.Background(), storage, a, Registration{Token: token})
	if err != nil {
		f.Fatal(err)
	}
	data, err := storage.Load(context.Background(), identityBlob)
	if err != nil {
		f.Fatal(err)
	}
	return data, identity
}

// What is read from a state directory either makes a whole identity or an error,
// which is never that there is none: that would be taken as leave to enrol.
func FuzzIdentityFile(f *testing.F) {
	good, _ := fuzzIdentity(f)
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte(`{"version":1,"credential":{"agent":"edge","certificates":[""]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		storage := &MemoryStorage{blobs: map[string][]byte{identityBlob: data}}
		identity, err := Load(t.Context(), storage)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				t.Errorf("damage is reported as absence: %v", err)
			}
			return
		}
		requireWhole(t, identity.now())
	})
}

// requireWhole checks what everything else takes for granted.
func requireWhole(t *testing.T, h *holding) {
	t.Helper()
	if CheckName(h.credential.Agent) != nil || h.roots == nil || h.certificate.Leaf == nil ||
		!sameKey(h.certificate.Leaf.PublicKey, h.key.Public()) {
		t.Errorf("half an identity of %q", h.credential.Agent)
	}
	if due := renewalTime(h); due.After(h.end(0)) {
		t.Errorf("is renewed at %s, after its end at %s", due, h.end(0))
	}
}

// Whatever a gateway answers: a credential that fits the agent's key, or an error
// that says how to go on.
func FuzzReply(f *testing.F) {
	_, identity := fuzzIdentity(f)
	key := identity.now().key
	good, err := json.Marshal(identity.now().credential)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(200, "", "", good)
	f.Add(200, "", "Sat, 21 Nov 2026 15:00:00 GMT", good[:len(good)-1])
	f.Add(401, "", "", []byte(`{"error":"registration refused"}`))
	f.Add(503, "30", "yesterday", []byte{})
	f.Add(307, "", "", []byte{})
	f.Fuzz(func(t *testing.T, status int, retry, date string, body []byte) {
		resp := &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: new(http.Request)}
		resp.Header.Set("Retry-After", retry)
		now := time.Now()
		if skew := clockSkew(date, now, now.Add(time.Second)); skew != 0 && date == "" {
			t.Errorf("a skew of %s without a date", skew)
		}
		credential, err := readReply(resp, registerPath)
		if busy, ok := errors.AsType[*UnavailableError](err); ok && (busy.RetryAfter < 0 || busy.RetryAfter > time.Hour) {
			t.Errorf("Retry-After %s is %s", strconv.Quote(retry), busy.RetryAfter)
		}
		if (credential == nil) == (err == nil) {
			t.Fatalf("credential %v, error %v", credential, err)
		}
		if err != nil {
			return
		}
		credential.ClockSkew = clockSkew(date, now, now.Add(time.Second))
		if h, err := newHolding(key, credential, "", now); err == nil {
			requireWhole(t, h)
		}
	})
}
