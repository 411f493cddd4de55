// Package testnet is bad networks for tests.
//
// A [TCPRelay] and a [UDPRelay] stand between two sockets, on every system and without
// rights. A [Lab] is hosts in network namespaces around a router that filters, throttles
// and goes down (Linux, root); a [Wire] joins two of them packet by packet in user space,
// since delay needs a kernel module that many kernels lack. What a relay or a wire does is
// decided by its seed and the number of the packet, and can be changed while it runs.
package testnet
