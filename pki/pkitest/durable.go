package pkitest

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/outgate/outgate/pki"
)

// TestDurableStore proves what a pki.Store promises about the time after its
// process. open makes an empty store and returns reopen, which closes the store
// that it returned last, if any, and opens it again.
func TestDurableStore(t *testing.T, open func(t *testing.T) (reopen func() pki.Store)) {
	t.Run("what was acknowledged is there", func(t *testing.T) { acknowledged(t, open(t)) })
	t.Run("what has failed is not", func(t *testing.T) { failed(t, open(t)) })
	t.Run("numbers go on", func(t *testing.T) { numbersGoOn(t, open(t)) })
}

func acknowledged(t *testing.T, reopen func() pki.Store) {
	a, g, c, r := agent("edge"), grant("g"), certificate("01", "edge", 0), revocation("01")
	update(t, reopen(), func(tx pki.Tx) error {
		return errors.Join(tx.PutAgent(a), tx.PutGrant(g), tx.PutCertificate(c), tx.AddRevocation(r))
	})
	changed := g
	changed.Serial = "01"
	update(t, reopen(), func(tx pki.Tx) error { return tx.PutGrant(changed) })
	for range 2 {
		view(t, reopen(), func(tx pki.Tx) error {
			agents, err := tx.Agents()
			if err != nil || !reflect.DeepEqual(agents, []pki.AgentRecord{a}) {
				t.Errorf("Agents: %+v, %v\nwant %+v", agents, err, a)
			}
			grants, err := tx.Grants("")
			if err != nil || !reflect.DeepEqual(grants, []pki.GrantRecord{changed}) {
				t.Errorf("Grants: %+v, %v\nwant %+v", grants, err, changed)
			}
			certificates, err := tx.Certificates("")
			if err != nil || !reflect.DeepEqual(certificates, []pki.CertificateRecord{c}) {
				t.Errorf("Certificates: %+v, %v\nwant %+v", certificates, err, c)
			}
			revocations, err := tx.Revocations(0)
			if err == nil && (len(revocations) != 1 || revocations[0].Serial != "01") {
				t.Errorf("Revocations: %+v, want one of 01", revocations)
			}
			return err
		})
	}
}

func failed(t *testing.T, reopen func() pki.Store) {
	stop := errors.New("stop")
	err := reopen().Update(t.Context(), func(tx pki.Tx) error {
		return errors.Join(tx.PutGrant(grant("g")), tx.PutAgent(agent("edge")), stop)
	})
	if !errors.Is(err, stop) {
		t.Errorf("Update: %v, want the function's error", err)
	}
	missing(t, reopen())
}

// numbersGoOn lets every revocation but the last be forgotten in between.
func numbersGoOn(t *testing.T, reopen func() pki.Store) {
	old := revocation("01")
	old.Forget = time.Now().Add(-time.Hour)
	last := uint64(0)
	for range 3 {
		update(t, reopen(), func(tx pki.Tx) error { return errors.Join(tx.AddRevocation(old), tx.AddRevocation(old)) })
		view(t, reopen(), func(tx pki.Tx) error {
			news, err := tx.Revocations(last)
			if err == nil && len(news) == 0 {
				t.Fatalf("no revocation above %d", last)
			}
			if err == nil {
				last = news[len(news)-1].Number
			}
			return err
		})
	}
}
