package tunnel

import (
	"context"
	"errors"
	"io"
	"os"
	"time"

	"github.com/outgate/outgate/internal/splice"
	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

// targetDialer serves tcp, unix and http on an agent: it dials what the policy
// allows and copies until both directions have ended.
type targetDialer struct{ agent *Agent }

func (a *Agent) newDialer() *policy.Dialer {
	return &policy.Dialer{
		Policy:   a.Policy,
		Own:      a.ownAddress,
		Resolver: a.Resolver,
		Timeout:  orDefault(a.DialTimeout, 10*time.Second),
		Audit: func(r policy.Request, denied *policy.Denied) {
			if r.Addr.IsValid() { // the name was audited when the stream was authorized
				a.audited(r, denied)
			}
		},
	}
}

func (d *targetDialer) ServeStream(ctx context.Context, in *Incoming) {
	log := d.agent.log.With("request_id", in.Target.RequestID, "target", in.Target.String(), "subject", in.Target.Subject)
	dialCtx, cancel := context.WithDeadline(ctx, in.Deadline)
	dialCtx, watched := in.watch(dialCtx)
	target, err := d.agent.dialer.DialTarget(dialCtx, d.agent.request(in))
	gone := watched()
	cancel()
	if gone != nil {
		if target != nil {
			splice.Abort(target, transport.Canceled)
		}
		code := transport.Canceled
		if errors.Is(gone, errEarlyPayload) {
			code = transport.Protocol
		}
		_ = in.Reject(code, gone.Error())
		return
	}
	if err == nil {
		if err = d.agent.reached(ctx, in, target); err != nil {
			splice.Abort(target, transport.Denied)
		}
	}
	if err != nil {
		code, reason := dialFailure(err)
		log.Warn("could not reach a target", "code", code.String(), "error", err)
		_ = in.Reject(code, reason)
		return
	}
	stream, err := in.Accept(target.RemoteAddr())
	if err != nil {
		splice.Abort(target, transport.ConnectionLost) // an end would look like a finished caller
		return
	}
	result := splice.Join(ctx, stream, target)
	log.Debug("stream ended", "bytes_to_target", result.ToTarget, "bytes_from_target", result.FromTarget, "error", result.Err)
}

// dialFailure is what the caller learns of a failed dial. The addresses behind a name
// and the words of the system stay in the agent's log.
func dialFailure(err error) (transport.Code, string) {
	if failed, ok := errors.AsType[*policy.DialError](err); ok {
		return failed.Code, ""
	}
	return refusal(err)
}

// watch ends the returned context when the opener goes away before it got an answer.
// The opener sends nothing before the reply, so whatever a Read returns in that time
// is the end of the stream. The returned function stops the watch and reports why the
// opener is gone, or nil.
func (in *Incoming) watch(ctx context.Context) (context.Context, func() error) {
	ctx, cancel := context.WithCancelCause(ctx)
	done := make(chan error, 1)
	go func() {
		var one [1]byte
		n, err := in.stream.Read(one[:])
		var reset *transport.StreamError
		switch {
		case n > 0:
			err = errEarlyPayload
		case errors.As(err, &reset):
		case errors.Is(err, os.ErrDeadlineExceeded):
			err = nil // stopped by the function below
		case errors.Is(err, io.EOF):
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			cancel(err)
		}
		done <- err
	}()
	return ctx, func() error {
		_ = in.stream.SetReadDeadline(longAgo)
		err := <-done
		cancel(nil)
		_ = in.stream.SetReadDeadline(time.Time{})
		return err
	}
}

var errEarlyPayload = errors.New("tunnel: payload before the reply")
