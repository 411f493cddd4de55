//go:build linux

package netlab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync/atomic"
)

// privateServices are what an agent's network offers: flows over TCP, and the content of
// flows over HTTP. tell learns how the flows end there.
func privateServices(tell func(ending)) (stop func(), err error) {
	tcp, err := net.Listen("tcp", tcpAddress)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := tcp.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue
			}
			go func() {
				f, err := readFlow(c)
				if err != nil {
					abort(c)
					return
				}
				tell(f.run(c, false, new(atomic.Int64)))
			}()
		}
	}()
	web, err := net.Listen("tcp", httpAddress)
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: http.HandlerFunc(serveContent)}
	go func() { _ = server.Serve(web) }()
	return func() {
		_ = tcp.Close()
		_ = server.Close()
	}, nil
}

func serveContent(w http.ResponseWriter, r *http.Request) {
	seed, _ := strconv.ParseUint(r.FormValue("seed"), 10, 64)
	size, _ := strconv.ParseInt(r.FormValue("size"), 10, 64)
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	buf := make([]byte, 16<<10)
	for at := int64(0); at < size; at += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), size-at)]
		fill(buf, seed, at)
		if _, err := w.Write(buf); err != nil {
			return
		}
	}
}

// fetch gets size bytes over HTTP and checks them.
func fetch(ctx context.Context, client *http.Client, seed uint64, size int64, moved *atomic.Int64) (corrupt string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/?seed=%d&size=%d", httpAddress, seed, size), nil)
	if err != nil {
		return "", err
	}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	buf, want := make([]byte, 16<<10), make([]byte, 16<<10)
	var at int64
	for {
		n, err := response.Body.Read(buf)
		fill(want[:n], seed, at)
		for i := range n {
			if buf[i] != want[i] {
				return fmt.Sprintf("byte %d of an answer is wrong", at+int64(i)), nil
			}
		}
		at += int64(n)
		moved.Add(int64(n))
		if err == nil {
			continue
		}
		if ended(err) == nil && at != size {
			return fmt.Sprintf("an answer of %d bytes ended cleanly after %d", size, at), nil
		}
		return "", ended(err)
	}
}
