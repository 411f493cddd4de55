// Package arch holds the rules of this repository as tests: who may import
// whom, what library code must not do, what every package must say about
// itself. It has no code of its own; read the tests, one file per rule.
//
// A rule is a function from a source tree to findings. It runs twice: on the
// repository, where it must find nothing, and on small trees that break it,
// where it must find exactly what is broken. A rule that cannot fail proves
// nothing.
//
// What a new package may import is one line of the table in imports_test.go.
// What a rule must tolerate is one line of the table in exceptions_test.go,
// with the reason; a line that no longer excuses anything is itself a finding.
//
// # Not here
//
// Style that a linter knows (formatting, error wrapping, unused code) is in
// .golangci.yml. The rules here are the ones that only this project has.
package arch
