package pki

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Failover is a [Registrar] that asks several, such as a [Client] for each
// gateway, in order until one has decided: said yes, or refused. When ctx has a
// deadline, each may take its share of what is left, so that one that is silent
// does not keep the next from being asked. If none decides, the error holds
// those of all. It is as safe for concurrent use as its members.
type Failover []Registrar

var _ Registrar = Failover(nil)

// Register asks until a registrar has decided.
func (f Failover) Register(ctx context.Context, r Registration) (*Credential, error) {
	return f.ask(ctx, func(ctx context.Context, each Registrar) (*Credential, error) { return each.Register(ctx, r) })
}

// Renew asks until a registrar has decided.
func (f Failover) Renew(ctx context.Context, r Renewal) (*Credential, error) {
	return f.ask(ctx, func(ctx context.Context, each Registrar) (*Credential, error) { return each.Renew(ctx, r) })
}

func (f Failover) ask(ctx context.Context, call func(context.Context, Registrar) (*Credential, error)) (*Credential, error) {
	var failures []error
	for i, each := range f {
		credential, err := f.askOne(ctx, len(f)-i, each, call)
		if err == nil {
			return credential, nil
		}
		if _, refused := errors.AsType[*RegistrationError](err); refused {
			return nil, err
		}
		failures = append(failures, err)
		if ctx.Err() != nil {
			break
		}
	}
	switch len(failures) {
	case 0:
		return nil, errors.New("pki: no registrar to ask: the Failover is empty")
	case 1:
		return nil, failures[0]
	}
	return nil, fmt.Errorf("pki: none of %d registrars could decide: %w", len(f), errors.Join(failures...))
}

// askOne gives one of those that are left its share of the time.
func (f Failover) askOne(ctx context.Context, left int, each Registrar, call func(context.Context, Registrar) (*Credential, error)) (*Credential, error) {
	if deadline, ok := ctx.Deadline(); ok && left > 1 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(deadline)/time.Duration(left))
		defer cancel()
	}
	return call(ctx, each)
}
