package kubesecret

import (
	"testing"
)

// An API server that is none, or a broken one, gives an error or a Secret that
// can be written back.
func FuzzSecret(f *testing.F) {
	f.Add([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"edge","resourceVersion":"1"},"data":{"identity":"eA=="}}`))
	f.Add([]byte(`{"data":null}`))
	f.Add([]byte(`null`))
	f.Add([]byte(`{"data":{"identity":1}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		found, err := decode(text)
		if err != nil {
			return
		}
		found.data["identity"] = []byte("x")
		again, err := found.encode()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		back, err := decode(again)
		if err != nil || string(back.data["identity"]) != "x" || len(back.data) != len(found.data) || len(back.fields) < len(found.fields) {
			t.Fatalf("%q became %q: %v", text, again, err)
		}
	})
}
