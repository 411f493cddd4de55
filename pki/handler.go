package pki

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"mime"
	"net/http"
	"strconv"
	"time"
)

// HandlerConfig adjusts a [Handler]. The zero value is ready to use.
type HandlerConfig struct {
	// PerSource limits the requests of one client address (of one /64 for
	// IPv6); zero means one per second after a burst of 10. Global limits
	// them all together; zero means 50 per second after a burst of 200.
	PerSource Rate
	Global    Rate

	// BehindTLSProxy accepts registrations over plain HTTP, for a gateway
	// behind a proxy that ends TLS. The network between the two then sees
	// tokens. PerSource then limits the proxy, and should be raised to Global.
	// Renewals need the agent's certificate and are refused regardless.
	BehindTLSProxy bool

	// RenewExpired lets agents renew whose certificate has ended. It is for a
	// registrar that verifies Renewal.Presented itself and knows a limit, as an
	// [Authority] does with its RenewalGrace: all that is known of such a
	// certificate here is that the agent has its key.
	RenewExpired bool

	// Logger hears of requests that failed for other reasons than a refusal,
	// which the registrar logs. nil is silent.
	Logger *slog.Logger
}

const (
	readTimeout      = 10 * time.Second // for a body of at most 64 KiB
	registrarTimeout = 15 * time.Second

	// refusalTime is when a refusal is answered, counted from the request: some
	// reasons to refuse cost a write to disk, and the delay hides which.
	refusalTime = 50 * time.Millisecond
)

// Handler serves a registrar to agents, at the routes
//
//	POST /outgate/v1/register   a token and a signing request for a certificate
//	POST /outgate/v1/renew      a client certificate and a signing request for the next one
//
// in JSON, over HTTPS only. A renewal is for the agent that the verified client
// certificate names; the server's TLS configuration has to ask for one, as that
// of [Authority.ServerTLS] does.
//
// Every refusal is the same answer, 401 after the same time. A request that is
// not understood is 400, one too large (64 KiB) 413, one too many 429, and a
// registrar that cannot decide is 503; the latter two say when to come back.
// Unknown fields are skipped.
func Handler(r Registrar, config HandlerConfig) http.Handler {
	h := &handler{
		registrar:    r,
		limiter:      newLimiter(config.PerSource, config.Global),
		plainHTTP:    config.BehindTLSProxy,
		renewExpired: config.RenewExpired,
		log:          config.Logger,
	}
	if h.log == nil {
		h.log = slog.New(slog.DiscardHandler)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+registerPath, h.register)
	mux.HandleFunc("POST "+renewPath, h.renew)
	return mux
}

type handler struct {
	registrar    Registrar
	limiter      *limiter
	plainHTTP    bool
	renewExpired bool
	log          *slog.Logger
}

func (h *handler) register(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.TLS == nil && !h.plainHTTP {
		reply(w, http.StatusForbidden, errorReply{"use https"})
		return
	}
	var req registerRequest
	if !h.read(w, r, &req) {
		return
	}
	token, err := ParseToken(req.Token)
	if err != nil { // no token can be this one; the answer does not tell
		h.refuse(w, r, start, &RegistrationError{})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), registrarTimeout)
	defer cancel()
	credential, err := h.registrar.Register(ctx, Registration{
		Token:    token,
		Agent:    req.Agent,
		CSR:      req.CSR,
		Hostname: req.Hostname,
		Metadata: req.Metadata,
		Source:   r.RemoteAddr,
	})
	h.answer(w, r, start, credential, err)
}

func (h *handler) renew(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	if r.TLS == nil {
		reply(w, http.StatusForbidden, errorReply{"use https"})
		return
	}
	var req renewRequest
	if !h.read(w, r, &req) {
		return
	}
	presented, err := h.presented(r, &req)
	if err != nil {
		h.log.DebugContext(r.Context(), "pki: renewal without a certificate", "source", r.RemoteAddr, "err", err)
		h.refuse(w, r, start, &RegistrationError{Renewal: true})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), registrarTimeout)
	defer cancel()
	credential, err := h.registrar.Renew(ctx, Renewal{
		Presented: presented,
		CSR:       req.CSR,
		Source:    r.RemoteAddr,
	})
	h.answer(w, r, start, credential, err)
}

// presented is the certificate of the TLS handshake or, if those are let in, the
// expired one whose key has signed the request.
func (h *handler) presented(r *http.Request, req *renewRequest) (*x509.Certificate, error) {
	switch {
	case len(r.TLS.VerifiedChains) > 0:
		return r.TLS.VerifiedChains[0][0], nil
	case req.Expired == nil:
		return nil, errors.New("no client certificate")
	case !h.renewExpired:
		return nil, errors.New("certificate has expired; HandlerConfig.RenewExpired is off")
	}
	return req.Expired.verify(req.CSR)
}

// read decodes the request into v, or answers why not.
func (h *handler) read(w http.ResponseWriter, r *http.Request, v any) bool {
	if wait := h.limiter.take(r.RemoteAddr, time.Now()); wait > 0 {
		retryLater(w, http.StatusTooManyRequests, wait)
		return false
	}
	// A form in a browser cannot send this type, so no web page can post here.
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		reply(w, http.StatusUnsupportedMediaType, errorReply{"send application/json"})
		return false
	}
	// A server without timeouts of its own gets one here, where it can be set.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readTimeout))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		reply(w, http.StatusRequestEntityTooLarge, errorReply{"request is too large"})
		return false
	}
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		reply(w, http.StatusBadRequest, errorReply{"request is not what this route takes"})
		return false
	}
	return true
}

func (h *handler) answer(w http.ResponseWriter, r *http.Request, start time.Time, c *Credential, err error) {
	var refused *RegistrationError
	switch {
	case errors.As(err, &refused):
		h.refuse(w, r, start, refused)
	case err != nil:
		h.log.ErrorContext(r.Context(), "pki: registrar", "path", r.URL.Path, "source", r.RemoteAddr, "err", err)
		retryLater(w, http.StatusServiceUnavailable, 10*time.Second)
	default:
		reply(w, http.StatusOK, c)
	}
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, start time.Time, e *RegistrationError) {
	timer := time.NewTimer(refusalTime - time.Since(start))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.Context().Done():
	}
	if e.Renewal {
		reply(w, http.StatusUnauthorized, errorReply{"renewal refused"})
	} else {
		reply(w, http.StatusUnauthorized, errorReply{"registration refused"})
	}
}

func retryLater(w http.ResponseWriter, status int, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
	reply(w, status, errorReply{"try again later"})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only when the client is gone
}
