package wire

import (
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"

	"github.com/outgate/outgate/transport"
)

// Limits of the fields of a header and of a reply, in bytes.
const (
	MaxService     = 128
	MaxAddress     = 1024
	MaxSubject     = 256
	MaxRequestID   = 128
	MaxTraceParent = 128
	MaxReason      = 1024
	MaxHop         = 1
)

// Header is what the opener of a stream sends first: what the stream is for.
type Header struct {
	Service     string `json:"service"`
	Address     string `json:"address,omitempty"`
	Subject     string `json:"subject,omitempty"`
	RequestID   string `json:"request_id,omitempty"`
	TraceParent string `json:"traceparent,omitempty"` // W3C Trace Context
	// DeadlineMillis is how long the opener will wait for the reply. 0 leaves it
	// to the acceptor.
	DeadlineMillis int64 `json:"deadline_ms,omitempty"`
	Hop            int   `json:"hop,omitempty"` // 1 when a sibling gateway forwarded it
}

// Reply is the acceptor's answer. After one with OK the stream carries the
// service's bytes; after any other the acceptor ends the stream.
type Reply struct {
	OK     bool           `json:"ok"`
	Code   transport.Code `json:"code,omitempty"`
	Reason string         `json:"reason,omitempty"`
	Addr   string         `json:"addr,omitempty"` // the address that was reached
}

// WriteHeader sends h with a single Write.
func WriteHeader(w io.Writer, h Header) error {
	if err := h.check(); err != nil {
		return fmt.Errorf("wire: encode: %w", err)
	}
	return writeMessage(w, h, MaxHeader)
}

// ReadHeader reads one header and nothing beyond it. See [ReadFrame] for errors.
func ReadHeader(r io.Reader) (Header, error) {
	var h Header
	if err := readMessage(r, &h, MaxHeader); err != nil {
		return Header{}, err
	}
	if err := h.check(); err != nil {
		return Header{}, fmt.Errorf("wire: %w: %w", ErrMalformed, err)
	}
	return h, nil
}

// WriteReply sends r with a single Write.
func WriteReply(w io.Writer, r Reply) error {
	if err := r.check(); err != nil {
		return fmt.Errorf("wire: encode: %w", err)
	}
	return writeMessage(w, r, MaxHeader)
}

// ReadReply reads one reply and nothing beyond it. See [ReadFrame] for errors.
func ReadReply(rd io.Reader) (Reply, error) {
	var r Reply
	if err := readMessage(rd, &r, MaxHeader); err != nil {
		return Reply{}, err
	}
	if err := r.check(); err != nil {
		return Reply{}, fmt.Errorf("wire: %w: %w", ErrMalformed, err)
	}
	return r, nil
}

func (h Header) check() error {
	if h.Service == "" {
		return fmt.Errorf("header without a service")
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"service", h.Service, MaxService},
		{"address", h.Address, MaxAddress},
		{"subject", h.Subject, MaxSubject},
		{"request_id", h.RequestID, MaxRequestID},
		{"traceparent", h.TraceParent, MaxTraceParent},
	} {
		if err := checkText(f.name, f.value, f.limit); err != nil {
			return err
		}
	}
	if err := checkMillis("deadline_ms", h.DeadlineMillis); err != nil {
		return err
	}
	if h.Hop < 0 || h.Hop > MaxHop {
		return fmt.Errorf("hop %d is not 0 to %d", h.Hop, MaxHop)
	}
	return nil
}

func (r Reply) check() error {
	if r.OK != (r.Code == transport.NoError) {
		return fmt.Errorf("reply with ok %t and code %d", r.OK, uint32(r.Code))
	}
	if err := checkText("reason", r.Reason, MaxReason); err != nil {
		return err
	}
	return checkText("addr", r.Addr, MaxAddress)
}

// checkText refuses what could forge a line in a log or a console.
func checkText(field, value string, limit int) error {
	if len(value) > limit {
		return fmt.Errorf("%s has %d bytes, more than %d", field, len(value), limit)
	}
	if !utf8.ValidString(value) {
		return fmt.Errorf("%s is not UTF-8", field)
	}
	for _, r := range value {
		if !unicode.IsPrint(r) {
			return fmt.Errorf("%s holds the unprintable character %U", field, r)
		}
	}
	return nil
}

func checkMillis(field string, ms int64) error {
	if ms < 0 || ms > maxMillis {
		return fmt.Errorf("%s is %d, not 0 to %d", field, ms, maxMillis)
	}
	return nil
}

// PrintableReason makes any text fit for a reason: one line, printable, short.
func PrintableReason(s string) string {
	out := make([]rune, 0, min(len(s), MaxReason))
	size := 0
	for _, r := range s {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		if size += utf8.RuneLen(r); size > MaxReason {
			break
		}
		out = append(out, r)
	}
	return string(out)
}
