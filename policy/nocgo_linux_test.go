//go:build !cgo

package policy_test

const hasCgo = false
