//go:build !linux

package testnet

import "errors"

// Namespaces returns why there are none.
func Namespaces() error { return errors.New("network namespaces are a feature of Linux") }
