package pkitest

import (
	"errors"
	"io/fs"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/outgate/outgate/pki"
)

func revocation(serial string) pki.RevocationRecord {
	return pki.RevocationRecord{
		Serial: serial, Agent: "edge", KeyHash: []byte{4, 5, 6}, Reason: "stolen", Time: start,
		Forget: start.Add(100 * 365 * 24 * time.Hour),
	}
}

func numbers(t *testing.T, s pki.Store) {
	update(t, s, func(tx pki.Tx) error {
		return errors.Join(tx.AddRevocation(revocation("01")), tx.AddRevocation(revocation("02")))
	})
	update(t, s, func(tx pki.Tx) error { return tx.AddRevocation(revocation("03")) })
	view(t, s, func(tx pki.Tx) error {
		all, err := tx.Revocations(0)
		if err != nil {
			return err
		}
		if len(all) != 3 {
			t.Fatalf("Revocations(0): %d records, want 3", len(all))
		}
		last := uint64(0)
		for i, serial := range []string{"01", "02", "03"} {
			want := revocation(serial)
			want.Number = all[i].Number
			if all[i].Number <= last || !reflect.DeepEqual(all[i], want) {
				t.Errorf("record %d: %+v\nwant %+v with a number above %d", i, all[i], want, last)
			}
			last = all[i].Number
			rest, err := tx.Revocations(last)
			if err != nil || len(rest) != 2-i {
				t.Errorf("Revocations(%d): %d records, %v, want %d", last, len(rest), err, 2-i)
			}
		}
		return nil
	})
}

// numbersInOrder follows the log while it is written to from many sides.
func numbersInOrder(t *testing.T, s pki.Store) {
	const writers, each = 8, 20
	var writing sync.WaitGroup
	for range writers {
		writing.Go(func() {
			for range each {
				if err := s.Update(t.Context(), func(tx pki.Tx) error { return tx.AddRevocation(revocation("01")) }); err != nil {
					t.Errorf("Update: %v", err)
				}
			}
		})
	}
	seen, last := 0, uint64(0)
	for done := false; !done; {
		// What is there when all are done is seen by one more round.
		done = waited(&writing)
		view(t, s, func(tx pki.Tx) error {
			news, err := tx.Revocations(last)
			for _, r := range news {
				if r.Number <= last {
					t.Errorf("number %d after %d", r.Number, last)
				}
				last = r.Number
				seen++
			}
			return err
		})
	}
	if seen != writers*each {
		t.Errorf("a follower has seen %d of %d revocations", seen, writers*each)
	}
}

// waited reports whether the group is done, after a short wait for it.
func waited(wg *sync.WaitGroup) bool {
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	select {
	case <-done:
		return true
	case <-time.After(time.Millisecond):
		return false
	}
}

func revokedKeys(t *testing.T, s pki.Store) {
	key := pki.RevocationRecord{KeyHash: []byte{1, 2, 3}, Reason: "leaked", Time: start}
	update(t, s, func(tx pki.Tx) error {
		return errors.Join(tx.AddRevocation(revocation("01")), tx.AddRevocation(key))
	})
	view(t, s, func(tx pki.Tx) error {
		got, err := tx.KeyRevocation(key.KeyHash)
		key.Number = got.Number
		if err != nil || !reflect.DeepEqual(got, key) {
			t.Errorf("KeyRevocation: %+v, %v\nwant %+v", got, err, key)
		}
		// The key of a revoked certificate is not revoked by that.
		if _, err := tx.KeyRevocation(revocation("01").KeyHash); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("KeyRevocation of a certificate's key: %v, want fs.ErrNotExist", err)
		}
		return nil
	})
}

// lastNumber puts many records that may be forgotten at once.
func lastNumber(t *testing.T, s pki.Store) {
	old := revocation("01")
	old.Forget = time.Now().Add(-time.Hour)
	last := uint64(0)
	for range 30 {
		update(t, s, func(tx pki.Tx) error {
			for range 100 {
				if err := tx.AddRevocation(old); err != nil {
					return err
				}
			}
			return nil
		})
		view(t, s, func(tx pki.Tx) error {
			news, err := tx.Revocations(last)
			if err == nil && (len(news) == 0 || news[0].Number <= last) {
				t.Fatalf("%d revocations above %d, want new ones with larger numbers", len(news), last)
			}
			if err == nil {
				last = news[len(news)-1].Number
			}
			return err
		})
	}
}
