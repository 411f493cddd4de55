//go:build !linux

package policy_test

func inChild() {}
