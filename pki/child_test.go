package pki_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
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

// gatewayChild is a gateway that waits for an order to begin, says where it is, and
// takes orders.
func gatewayChild(ctx context.Context) error {
	orders := bufio.NewScanner(os.Stdin)
	if !orders.Scan() { // the order to begin
		return errors.New("no order")
	}
	dir := os.Getenv("CHILD_DIR")
	store, err := pki.OpenFileStore(filepath.Join(dir, "registry"))
	if err != nil {
		return err
	}
	signer, cert, err := pki.LoadOrCreateCA(ctx, filepath.Join(dir, "ca"), "test")
	if err != nil {
		return err
	}
	a := &pki.Authority{Signer: signer, Certificate: cert, Store: store}
	config, err := a.ServerTLS(tls.VerifyClientCertIfGiven, "127.0.0.1")
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{
		Handler: pki.Handler(a, pki.HandlerConfig{}), TLSConfig: config, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	}
	go func() { _ = server.ServeTLS(listener, "", "") }()
	fmt.Printf("https://%s %s\n", listener.Addr(), pki.PinOf(cert))
	for orders.Scan() && orders.Text() != "stop" {
		switch orders.Text() {
		case "grant":
			token, err := a.Grant(ctx, pki.Grant{Agent: "edge"})
			if err != nil {
				return err
			}
			fmt.Println(token.Reveal())
		case "revoke":
			if _, err := a.Revoke(ctx, pki.Revocation{Agent: "edge"}); err != nil {
				return err
			}
			fmt.Println("revoked")
		case "label":
			for i := range 20 {
				if err := a.PutAgent(ctx, "edge", map[string]string{"round": fmt.Sprint(i)}); err != nil {
					return err
				}
			}
			fmt.Println("labelled")
		}
	}
	return errors.Join(server.Close(), store.Close())
}
