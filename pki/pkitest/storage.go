package pkitest

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"strings"
	"sync"
	"testing"

	"github.com/outgate/outgate/pki"
)

// TestStorage proves the contract of pki.Storage. open returns an empty storage
// and arranges for it to be closed.
func TestStorage(t *testing.T, open func(t *testing.T) pki.Storage) {
	for _, promise := range []struct {
		name string
		test func(t *testing.T, s pki.Storage)
	}{
		{"a missing blob is fs.ErrNotExist", missingBlob},
		{"a blob comes back as it was saved", savedBlob},
		{"to delete a missing blob is no error", deletedBlob},
		{"names that could leave the storage are refused", badNames},
		{"a reader sees one whole blob among writers", parallelBlobs},
		{"a canceled context saves nothing", canceledBlob},
	} {
		t.Run(promise.name, func(t *testing.T) { promise.test(t, open(t)) })
	}
}

func missingBlob(t *testing.T, s pki.Storage) {
	if _, err := s.Load(t.Context(), "key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load: %v, want fs.ErrNotExist", err)
	}
}

func savedBlob(t *testing.T, s pki.Storage) {
	for _, want := range [][]byte{[]byte("one"), bytes.Repeat([]byte{0, 0xff}, 10_000), {}} {
		data := bytes.Clone(want)
		if err := s.Save(t.Context(), "key", data); err != nil {
			t.Fatalf("Save: %v", err)
		}
		clear(data)
		got, err := s.Load(t.Context(), "key")
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("Load: %d bytes, %v, want the %d that were saved", len(got), err, len(want))
		}
		clear(got)
		if again, err := s.Load(t.Context(), "key"); err != nil || !bytes.Equal(again, want) {
			t.Fatal("a change of what Load returned changed the blob")
		}
	}
	if _, err := s.Load(t.Context(), "key2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Load of another name: %v, want fs.ErrNotExist", err)
	}
}

func deletedBlob(t *testing.T, s pki.Storage) {
	if err := s.Save(t.Context(), "key", []byte("one")); err != nil {
		t.Fatalf("Save: %v", err)
	}
	for range 2 {
		if err := s.Delete(t.Context(), "key"); err != nil {
			t.Fatalf("Delete: %v", err)
		}
	}
	missingBlob(t, s)
}

func badNames(t *testing.T, s pki.Storage) {
	for _, name := range []string{"", ".", "..", "../key", "a/b", `a\b`, "/key", ".hidden", "-f", "a\x00b", "KEY", "käse", strings.Repeat("a", 65)} {
		if err := s.Save(t.Context(), name, []byte("x")); err == nil {
			t.Errorf("Save(%q): no error", name)
		}
	}
}

func parallelBlobs(t *testing.T, s pki.Storage) {
	const size = 4096
	blob := func(b byte) []byte { return bytes.Repeat([]byte{b}, size) }
	if err := s.Save(t.Context(), "key", blob('a')); err != nil {
		t.Fatalf("Save: %v", err)
	}
	var wg sync.WaitGroup
	for w := range byte(4) {
		wg.Go(func() {
			for range 25 {
				if err := s.Save(t.Context(), "key", blob('a'+w)); err != nil {
					t.Errorf("Save: %v", err)
				}
				got, err := s.Load(t.Context(), "key")
				if err != nil || len(got) != size || !bytes.Equal(got, blob(got[0])) {
					t.Errorf("Load: a mixture of %d bytes, %v", len(got), err)
				}
			}
		})
	}
	wg.Wait()
}

func canceledBlob(t *testing.T, s pki.Storage) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Save(ctx, "key", []byte("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("Save: %v, want context.Canceled", err)
	}
	missingBlob(t, s)
}
