package policy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/outgate/outgate/transport"
)

// DialError says that a target was allowed and could not be reached. It matches its
// Code, and what Err matches, with errors.Is; and os.ErrDeadlineExceeded when the
// code is Timeout.
type DialError struct {
	Target Target
	Code   transport.Code
	Err    error // of the resolver, or of all attempts
}

var _ net.Error = (*DialError)(nil)

func (e *DialError) Error() string {
	return fmt.Sprintf("policy: dial %s: %s: %v", e.Target, e.Code, e.Err)
}

// Is reports whether target is the code of e.
func (e *DialError) Is(target error) bool {
	return target == error(e.Code) || target == os.ErrDeadlineExceeded && e.Code == transport.Timeout
}

// Unwrap returns Err.
func (e *DialError) Unwrap() error { return e.Err }

// Timeout reports whether no answer came in time.
func (e *DialError) Timeout() bool { return e.Code == transport.Timeout }

// Temporary is always false: whether to try again is the caller's decision. (net.Error)
func (e *DialError) Temporary() bool { return false }

// dialCodes are in the order of what they say about the target: when its addresses
// fail differently, the first code in this list that occurs is the code of the dial.
var dialCodes = []struct {
	code transport.Code
	errs []error
}{
	{transport.Canceled, []error{context.Canceled}},
	{transport.Overloaded, []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM}},
	{transport.Refused, []error{syscall.ECONNREFUSED}},
	{transport.TargetReset, []error{syscall.ECONNRESET}},
	{transport.NameNotFound, []error{fs.ErrNotExist}},
	{transport.Timeout, []error{context.DeadlineExceeded, os.ErrDeadlineExceeded, syscall.ETIMEDOUT}},
	{transport.Unreachable, []error{
		syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.ENETDOWN, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, fs.ErrPermission,
	}},
}

func dialCode(err error) transport.Code {
	for _, c := range dialCodes {
		for _, target := range c.errs {
			if errors.Is(err, target) {
				return c.code
			}
		}
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return transport.Timeout
	}
	return transport.Internal
}

func resolveCode(err error) transport.Code {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		switch {
		case dns.IsNotFound:
			return transport.NameNotFound
		case dns.IsTimeout:
			return transport.Timeout
		}
	}
	if code := dialCode(err); code != transport.Internal {
		return code
	}
	// A resolver that answers with a failure says nothing about the name.
	return transport.Unreachable
}

// attemptErrors are the errors of one dial in the order in which they came. Unlike
// errors.Join it makes one line.
type attemptErrors []error

func (e attemptErrors) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

func (e attemptErrors) Unwrap() []error { return e }
