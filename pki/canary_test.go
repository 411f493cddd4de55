package pki_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/outgate/outgate/pki"
)

// canaries are secrets that must stay where they are.
type canaries map[string][]byte

// requireNone fails when text holds one of them, in any of the ways that Go
// prints bytes.
func (c canaries) requireNone(t *testing.T, text, where string) {
	t.Helper()
	for name, secret := range c {
		for how, form := range spellings(secret) {
			require.NotContains(t, text, form, "%s shows the %s in %s", where, name, how)
		}
	}
}

func spellings(secret []byte) map[string]string {
	list := func(format, separator string) string {
		var all []string
		for _, b := range secret {
			all = append(all, fmt.Sprintf(format, b))
		}
		return strings.Join(all, separator)
	}
	forms := map[string]string{
		"full":        string(secret),
		"hex":         hex.EncodeToString(secret),
		"HEX":         strings.ToUpper(hex.EncodeToString(secret)),
		"decimal":     list("%d", " "),
		"decimals":    list("%d", ","),
		"Go syntax":   list("%#x", ", "),
		"hex, spaced": list("%x", " "),
		"quoted":      strings.Trim(fmt.Sprintf("%q", secret), `"`),
	}
	for offset := range 3 { // where the secret begins among other bytes in base64
		encoded := base64.RawStdEncoding.EncodeToString(secret[offset:])
		forms[fmt.Sprintf("base64+%d", offset)] = encoded[:len(encoded)-2]
	}
	return forms
}

// number adds how a big integer prints.
func (c canaries) number(name string, key *ecdsa.PrivateKey) {
	raw, _ := key.Bytes()
	c[name] = raw
	c[name+" as a number"] = []byte(key.D.String()) //nolint:staticcheck // deprecated, and printed
}

// everyWay is how values get into logs, messages and debug pages.
func everyWay(v any) map[string]string {
	out := make(map[string]string)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	if text, err := json.Marshal(v); err == nil {
		out["JSON"] = string(text)
	}
	for name, handler := range map[string]func(io.Writer) slog.Handler{
		"slog text": func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, nil) },
		"slog JSON": func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, nil) },
	} {
		var text bytes.Buffer
		slog.New(handler(&text)).Info("x", "value", v)
		out[name] = text.String()
	}
	return out
}

func TestSecretsAreNotPrinted(t *testing.T) {
	a, log := newAuthority(t)
	base := serve(t, a, pki.HandlerConfig{})
	storage := new(pki.MemoryStorage)
	token := grant(t, a, pki.Grant{Agent: "edge"})
	registration := pki.Registration{Token: token, Metadata: map[string]string{"os": "linux"}}
	client := clientOf(a, base)
	e := &pki.Enroller{Storage: storage, Registrar: pki.Failover{client}, Logger: slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug - 100}))}
	identity, err := e.Enroll(t.Context(), registration)
	require.NoError(t, err)
	credential, err := client.Renew(t.Context(), pki.Renewal{TLS: identity.ClientTLS(), CSR: csrOf(t, newKey(t))})
	require.NoError(t, err)
	files := openStorage(t, t.TempDir()+"/agent")
	require.NoError(t, files.Save(t.Context(), "identity", []byte("x")))

	_, secret, _ := strings.Cut(token.Reveal(), ".")
	planted := canaries{"token": []byte(secret)}
	key, ok := identity.Certificate().PrivateKey.(*ecdsa.PrivateKey)
	require.True(t, ok)
	planted.number("agent's key", key)
	stored, err := storage.Load(t.Context(), "identity")
	require.NoError(t, err)
	at := bytes.Index(stored, []byte(`"key":"`))
	require.Positive(t, at)
	planted.number("authority's key", a.Signer.(*ecdsa.PrivateKey))
	planted["stored key"] = stored[at+60 : at+100]

	uncopied := []string{"MemoryStorage", "Identity", "Authority", "MemoryStore"} // go vet sees to it, or nobody would
	for name, v := range map[string]any{
		"Token": token, "*Token": &token,
		"Registration": registration, "*Registration": &registration,
		"Renewal":  pki.Renewal{TLS: identity.ClientTLS(), Presented: identity.Certificate().Leaf},
		"Identity": identity, "Status": identity.Status(), "Credential": credential,
		"Enroller": e, "Failover": e.Registrar, "Client": client,
		"MemoryStorage": storage, "FileStorage": files,
		"Authority": a, "MemoryStore": a.Store,
		"inside of another type": struct {
			Storage pki.Storage
			Token   pki.Token
			private any
		}{storage, token, registration},
	} {
		for how, text := range everyWay(v) {
			planted.requireNone(t, text, name+" "+how)
		}
		if value := reflect.ValueOf(v); value.Kind() == reflect.Pointer && !slices.Contains(uncopied, name) {
			for how, text := range everyWay(value.Elem().Interface()) {
				planted.requireNone(t, text, name+" by value, "+how)
			}
		}
	}
	canaries{"token": []byte(secret)}.requireNone(t, string(stored), "the state file")
	planted.requireNone(t, log.String(), "the log")
	require.Contains(t, log.String(), token.ID()) // the half that may
}

// What goes wrong is told without what it went wrong with.
func TestFailuresDoNotPrintSecrets(t *testing.T) {
	a, log := newAuthority(t)
	used := grant(t, a, pki.Grant{Agent: "edge"})
	_, err := pki.Enroll(t.Context(), new(pki.MemoryStorage), a, pki.Registration{Token: used})
	require.NoError(t, err)
	_, secret, _ := strings.Cut(used.Reveal(), ".")
	planted := canaries{"token": []byte(secret)}

	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Location", "https://localhost/?"+secret)
		w.Header().Set("Retry-After", secret)
		status := http.StatusOK
		_, _ = fmt.Sscan(strings.TrimPrefix(r.URL.Path, "/"), &status)
		w.WriteHeader(status)
		_, _ = w.Write(body)
	})
	echoing := localhost(serveTLS(t, a, echo))
	registrars := map[string]pki.Registrar{
		"a refusal":     clientOf(a, serve(t, a, pki.HandlerConfig{})),
		"in process":    a,
		"nobody there":  &pki.Client{Gateway: "https://127.0.0.1:1"},
		"another pin":   &pki.Client{Gateway: echoing, Pins: []pki.Pin{{1}}},
		"no roots":      &pki.Client{Gateway: echoing},
		"several":       pki.Failover{&pki.Client{Gateway: "https://127.0.0.1:1"}, &pki.Client{Gateway: echoing}},
		"no URL":        &pki.Client{Gateway: "https://user:" + secret + "@localhost"},
		"not quite one": &pki.Client{Gateway: "https://" + secret + " x"},
	}
	for _, status := range []string{"200", "302", "307", "400", "404", "418", "429", "503"} {
		registrars["an echo with "+status] = &pki.Client{Gateway: echoing + "/" + status, Pins: []pki.Pin{pki.PinOf(a.Certificate)}}
	}
	for name, registrar := range registrars {
		ctx, cancel := context.WithCancelCause(t.Context())
		e := &pki.Enroller{Storage: new(pki.MemoryStorage), Registrar: registrar, Logger: slog.New(stopping{log.logger().Handler(), cancel})}
		_, err := e.Enroll(ctx, pki.Registration{Token: used})
		cancel(nil)
		require.Error(t, err, name)
		for ; err != nil; err = errors.Unwrap(err) {
			for how, text := range everyWay(err) {
				planted.requireNone(t, text, name+" "+how)
			}
		}
	}
	planted.requireNone(t, log.String(), "the log")
}

// stopping ends an enrolment that would go on, once it has logged that it does.
type stopping struct {
	slog.Handler
	stop context.CancelCauseFunc
}

func (s stopping) Handle(ctx context.Context, r slog.Record) error {
	s.stop(errors.New("seen enough"))
	return s.Handler.Handle(ctx, r)
}
