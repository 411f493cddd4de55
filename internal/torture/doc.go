// Package torture holds tests that break tunnels on purpose, over every carrier and
// from outside: processes that are killed, cables that are cut between two bytes,
// thousands of streams that nobody reads, peers that do not play by the rules. One
// file of tests is one promise.
//
// By default the tests run a tenth of their rounds or less. With OUTGATE_TORTURE=1
// in the environment they run all of them, as .ci/run torture does; -v shows the
// counts and figures.
//
// A carrier is a line in carriers_test.go. What a carrier cannot do by its design is
// a field of that line, with the reason.
package torture
