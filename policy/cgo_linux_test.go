//go:build cgo

package policy_test

// hasCgo says that the resolver of the C library is in this binary.
const hasCgo = true
