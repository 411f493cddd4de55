package policy_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/outgate/outgate/policy"
	"github.com/outgate/outgate/transport"
)

func ExampleParse() {
	_, err := policy.Parse(strings.NewReader(`
enable_access_restrictions: true
allowed_endpoint:
  - my-postgres.internal:5432
`))
	fmt.Println(err)
	// Output: policy: line 3: unknown key "allowed_endpoint"; the keys are enable_access_restrictions, allowed_endpoints, denied_endpoints, audit_only, kubernetes
}

func ExampleRules() {
	rules, err := policy.Parse(strings.NewReader(`
enable_access_restrictions: true
allowed_endpoints:
  - my-postgres.internal:5432
  - "*.prod.internal:443"
denied_endpoints:
  - vault.prod.internal
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, address := range []string{"my-postgres.internal:5432", "api.prod.internal:443", "vault.prod.internal:443", "prod.internal:443", "169.254.169.254:80"} {
		target, err := policy.ParseTarget("tcp", address)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("%s: %s\n", address, rules.Explain(policy.Request{Target: target}))
	}
	// Output:
	// my-postgres.internal:5432: may be resolved by rule my-postgres.internal:5432 on line 4: a rule allows the name
	// api.prod.internal:443: may be resolved by rule *.prod.internal:443 on line 5: a rule allows the name
	// vault.prod.internal:443: denied by rule vault.prod.internal on line 7: a rule denies it
	// prod.internal:443: denied: no rule allows it
	// 169.254.169.254:80: denied: the address is special (metadata): only a rule for exactly this address with allow_special opens it
}

func ExampleAll() {
	rules, err := policy.Parse(strings.NewReader(`enable_access_restrictions: false`))
	if err != nil {
		fmt.Println(err)
		return
	}
	readers := policy.Func(func(_ context.Context, r policy.Request) error {
		if r.Target.Port == 5432 && r.Subject != "alice" {
			return &policy.Denied{Target: r.Target, Addr: r.Addr, Rule: "readers", Reason: "only alice reaches the databases"}
		}
		return nil
	})
	target, err := policy.ParseTarget("tcp", "db.internal:5432")
	if err != nil {
		fmt.Println(err)
		return
	}
	both := policy.All(rules, readers)
	fmt.Println(both.Authorize(context.Background(), policy.Request{Subject: "alice", Target: target}))
	fmt.Println(both.Authorize(context.Background(), policy.Request{Subject: "mallory", Target: target}))
	// Output:
	// <nil>
	// policy: tcp:db.internal:5432 denied: only alice reaches the databases (rule "readers")
}

// database stands for a server in the agent's network.
func database() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	return l
}

// zone stands for the name server of the agent's network.
type zone map[string]string

func (z zone) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	addr, err := netip.ParseAddr(z[host])
	if err != nil {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	return []netip.Addr{addr}, nil
}

func ExampleDialer() {
	db := database()
	defer db.Close()
	_, port, _ := net.SplitHostPort(db.Addr().String())
	rules, err := policy.Parse(strings.NewReader(`
enable_access_restrictions: true
allowed_endpoints:
  - "*.internal"
  - {endpoint: 127.0.0.1, service: tcp, allow_special: true}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	dialer := &policy.Dialer{
		Policy:   rules,
		Resolver: zone{"db.internal": "127.0.0.1", "rebound.internal": "169.254.169.254"},
	}
	for _, ask := range [][2]string{{"tcp", "db.internal"}, {"tcp", "rebound.internal"}, {"tcp", "gone.internal"}, {"http", "example.com"}} {
		service, host := ask[0], ask[1]
		target, err := policy.ParseTarget(service, host+":"+port)
		if err != nil {
			fmt.Println(err)
			return
		}
		conn, err := dialer.DialTarget(context.Background(), policy.Request{Target: target})
		var denied *policy.Denied
		switch {
		case errors.As(err, &denied):
			fmt.Println(host, "denied:", denied.Reason)
		case errors.Is(err, transport.NameNotFound):
			fmt.Println(host, "does not exist")
		case err != nil:
			fmt.Println(err)
		default:
			fmt.Println(host, "connected")
			_ = conn.Close()
		}
	}
	// Output:
	// db.internal connected
	// rebound.internal denied: the address is special (metadata): only a rule for exactly this address with allow_special opens it
	// gone.internal does not exist
	// example.com denied: no rule allows it
}

func ExampleFile() {
	dir, err := os.MkdirTemp("", "policy")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	file := &policy.File{Path: filepath.Join(dir, "policy.yaml")}
	db, err := policy.ParseTarget("tcp", "db.internal:5432")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, document := range []string{
		"enable_access_restrictions: true\nallowed_endpoints: [db.internal]\n",
		"enable_access_restrictions: true\nallowed_endpoint: []\n",
		"enable_access_restrictions: true\n",
	} {
		if err := os.WriteFile(file.Path, []byte(document), 0o600); err != nil {
			fmt.Println(err)
			return
		}
		// A daemon calls this once, and has Run do so from then on.
		err := file.Reload()
		if bad, ok := errors.AsType[*policy.SyntaxError](err); ok {
			fmt.Println("not in force: line", bad.Line)
		}
		fmt.Println(file.Explain(policy.Request{Target: db}))
	}
	// Output:
	// may be resolved by rule db.internal on line 2: a rule allows the name
	// not in force: line 2
	// may be resolved by rule db.internal on line 2: a rule allows the name
	// denied: no rule allows it
}

func ExampleDialer_Explain() {
	rules, err := policy.Parse(strings.NewReader("enable_access_restrictions: true\nallowed_endpoints: ['*.internal:5432']\n"))
	if err != nil {
		fmt.Println(err)
		return
	}
	dialer := &policy.Dialer{Policy: rules, Resolver: zone{"db.internal": "10.0.0.5", "rebound.internal": "127.0.0.1"}}
	for _, address := range []string{"db.internal:5432", "rebound.internal:5432", "web.internal:80"} {
		target, err := policy.ParseTarget("tcp", address)
		if err != nil {
			fmt.Println(err)
			return
		}
		found := dialer.Explain(context.Background(), policy.Request{Target: target})
		fmt.Println(found.Target, found.Allowed)
		for _, a := range found.Addresses {
			fmt.Println(" ", a.Addr, a.Decision)
		}
	}
	// Output:
	// tcp:db.internal:5432 true
	//   10.0.0.5 allowed by rule *.internal:5432 on line 2: a rule allows the name
	// tcp:rebound.internal:5432 false
	//   127.0.0.1 denied: the address is special (loopback): only a rule for exactly this address with allow_special opens it
	// tcp:web.internal:80 false
}
