package testnet

import (
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"
	"unsafe"
)

// Wire joins two hosts directly, beside their router: every packet between its two
// addresses passes through this process.
type Wire struct {
	A, B netip.Addr // of the two hosts on this wire

	lines [2]*line
	tasks sync.WaitGroup
}

// Wire connects a and b. It ends with the test.
func (l *Lab) Wire(tb testing.TB, a, b *Host, seed uint64) *Wire {
	tb.Helper()
	w := &Wire{
		A: netip.AddrFrom4([4]byte{10, 232, byte(a.number), byte(b.number)}),
		B: netip.AddrFrom4([4]byte{10, 233, byte(a.number), byte(b.number)}),
	}
	endA := w.end(tb, a, fmt.Sprintf("w%d", b.number), w.A, w.B)
	endB := w.end(tb, b, fmt.Sprintf("w%d", a.number), w.B, w.A)
	w.lines[AToB] = newLine(seed, 0, false, Conditions{}, func(p []byte) { _, _ = endB.Write(p) })
	w.lines[BToA] = newLine(seed, 1, false, Conditions{}, func(p []byte) { _, _ = endA.Write(p) })
	w.tasks.Go(func() { pumpPackets(endA, w.lines[AToB]) })
	w.tasks.Go(func() { pumpPackets(endB, w.lines[BToA]) })
	tb.Cleanup(func() {
		w.lines[AToB].stop()
		w.lines[BToA].stop()
		_ = endA.Close()
		_ = endB.Close()
		w.tasks.Wait()
		<-w.lines[AToB].done
		<-w.lines[BToA].done
	})
	return w
}

// Set changes one direction.
func (w *Wire) Set(d Direction, c Conditions) { w.lines[d].set(c) }

// end makes one end of the wire and moves it to its host.
func (w *Wire) end(tb testing.TB, h *Host, name string, local, remote netip.Addr) *os.File {
	tb.Helper()
	tun, device, err := openTUN()
	must(tb, err)
	if err := run("ip", "link", "set", device, "netns", h.name, "name", name); err != nil {
		_ = tun.Close()
		must(tb, err)
	}
	tb.Cleanup(func() { _ = tun.Close() }) // a second time, unless the other end could not be made
	must(tb, run("ip", "-n", h.name, "addr", "add", local.String(), "peer", remote.String(), "dev", name))
	must(tb, run("ip", "-n", h.name, "link", "set", name, "txqueuelen", "2000", "up"))
	must(tb, run("ip", "-n", h.name, "route", "replace", remote.String(), "dev", name, "src", local.String(), "congctl", congestionControl))
	return tun
}

// openTUN makes a TUN device, under a name of the kernel's choice.
func openTUN() (tun *os.File, device string, err error) {
	fd, err := syscall.Open("/dev/net/tun", syscall.O_RDWR|syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("open /dev/net/tun: %w", err)
	}
	var request struct {
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	request.flags = syscall.IFF_TUN | syscall.IFF_NO_PI
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.TUNSETIFF, uintptr(unsafe.Pointer(&request))); errno != 0 {
		_ = syscall.Close(fd)
		return nil, "", fmt.Errorf("make a TUN device: %w", errno)
	}
	device = string(request.name[:slices.Index(request.name[:], 0)])
	return os.NewFile(uintptr(fd), device), device, nil
}

func pumpPackets(from *os.File, to *line) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		to.send(slices.Clone(buf[:n]))
	}
}
