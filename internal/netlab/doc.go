// Package netlab holds tests of whole tunnels on bad networks: a gateway and its agents
// run as processes of their own, each in its network namespace behind a router that loses,
// throttles, cuts and blackholes.
//
// The tests need Linux, root, iproute2 and nftables. Without them they are skipped, but
// fail where CI is set. By default they take seconds and show each fault a few times; with
// OUTGATE_NETLAB=1 they show it often enough for percentiles and run the soak, for the
// time in OUTGATE_SOAK (default 60s) and from the seed in OUTGATE_SEED (default random).
package netlab
