package pki_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/outgate/outgate/pki"
)

// exhaustive reports whether .ci/run crash runs the tests. They take minutes.
func exhaustive() bool { return os.Getenv("OUTGATE_CRASH") != "" }

// agentChild is an agent that enrols and, if it still has the certificate that it
// was told of, renews that once. It does what it does to files on one thread, so
// that their order can be counted.
func agentChild(ctx context.Context) error {
	runtime.LockOSThread()
	storage, err := pki.OpenFileStorage(os.Getenv("CHILD_DIR"))
	if err != nil {
		return err
	}
	pin, err := pki.ParsePin(os.Getenv("CHILD_PIN"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(os.Getenv("CHILD_TOKEN_FILE"))
	if err != nil {
		return err
	}
	token, err := pki.ParseToken(string(text))
	if err != nil {
		return err
	}
	client := &pki.Client{Gateway: os.Getenv("CHILD_GATEWAY"), Pins: []pki.Pin{pin}}
	e := &pki.Enroller{Storage: storage, Registrar: client}
	// Its certificates are due at once.
	e.SetClock(func() time.Time { return time.Now().Add(65 * day) })
	identity, err := e.Enroll(ctx, pki.Registration{Token: token})
	if err != nil {
		return err
	}
	old := os.Getenv("CHILD_RENEWS")
	if identity.Status().Serial == old {
		ctx, cancel := context.WithTimeout(ctx, time.Minute)
		defer cancel()
		go func() {
			for identity.Status().Serial == old && ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			cancel()
		}()
		if err := identity.Run(ctx, client); !errors.Is(err, context.Canceled) {
			return fmt.Errorf("not renewed: %w; %w", err, identity.Status().Failure)
		}
	}
	return storage.Close()
}
