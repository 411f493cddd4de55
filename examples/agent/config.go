package main

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/outgate/outgate/pki"
	"github.com/outgate/outgate/policy"
)

// fields are the keys of the configuration file.
type fields struct {
	Gateways  []string   `yaml:"gateways"`
	Transport string     `yaml:"transport"`
	Pins      []pki.Pin  `yaml:"pins"`
	CAFile    string     `yaml:"ca_file"`
	Name      string     `yaml:"name"`
	TokenFile string     `yaml:"token_file"`
	StateDir  string     `yaml:"state_dir"`
	LogLevel  slog.Level `yaml:"log_level"`
	Policy    yaml.Node  `yaml:"policy"`
}

var keys = []string{"gateways", "transport", "pins", "ca_file", "name", "token_file", "state_dir", "log_level", "policy"}

// config is a configuration that was checked.
type config struct {
	fields
	path  string
	rules *policy.Rules  // without a policy they allow nothing
	roots *x509.CertPool // nil: the system's
}

const stdin = "-"

// loadConfig reads a configuration file. Errors name the line.
func loadConfig(path string) (*config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w; name the file with --config", err)
	}
	c, err := parseConfig(text)
	if err == nil {
		err = c.resolve(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	c.path = path
	return c, nil
}

func parseConfig(text []byte) (*config, error) {
	root, err := parseMapping(text)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(root.Content); i += 2 {
		if key := root.Content[i]; !slices.Contains(keys, key.Value) {
			return nil, fmt.Errorf("line %d: unknown key %q; the keys are %s", key.Line, key.Value, strings.Join(keys, ", "))
		}
	}
	c := new(config)
	if err := root.Decode(&c.fields); err != nil {
		return nil, errors.New(strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "yaml: unmarshal errors: "))
	}
	switch c.Transport {
	case "":
		c.Transport = "auto"
	case "auto", "websocket", "quic":
	default:
		return nil, fmt.Errorf("transport %q: use auto, websocket or quic", c.Transport)
	}
	if len(c.Gateways) == 0 {
		return nil, errors.New(`no gateways; add gateways: ["https://gateway.example.com:8443"]`)
	}
	if c.StateDir == "" {
		return nil, errors.New("no state_dir; add a folder for the key and the certificate, such as state_dir: agent-state")
	}
	if len(c.Pins) > 0 && c.CAFile != "" {
		return nil, errors.New("pins and ca_file are two ways to trust the gateway; keep one")
	}
	rules := []byte(nothing)
	if !c.Policy.IsZero() {
		rules = policyText(text, root)
	}
	if c.rules, err = policy.Parse(bytes.NewReader(rules)); err != nil {
		return nil, err
	}
	return c, nil
}

// nothing is the policy of a configuration that has none.
const nothing = "enable_access_restrictions: true\nallowed_endpoints: []\n"

// parseRules is parseConfig for whom only the policy concerns.
func parseRules(r io.Reader) (*policy.Rules, error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	c, err := parseConfig(text)
	if err != nil {
		return nil, err
	}
	return c.rules, nil
}

// parseMapping parses a text that is one mapping, in block style.
func parseMapping(text []byte) (*yaml.Node, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var document yaml.Node
	if err := decoder.Decode(&document); errors.Is(err, io.EOF) {
		return nil, errors.New("it is empty")
	} else if err != nil {
		return nil, errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if decoder.Decode(new(yaml.Node)) != io.EOF {
		return nil, errors.New("it has more than one YAML document")
	}
	root := document.Content[0]
	if root.Kind != yaml.MappingNode || root.Style&yaml.FlowStyle != 0 {
		return nil, errors.New(`write one "key: value" to a line`)
	}
	return root, nil
}

// policyText is text with all but the value of the key policy blanked out, so
// that the line numbers in the errors of the policy package are those of the file.
func policyText(text []byte, root *yaml.Node) []byte {
	first, last := 0, 1<<30 // lines, from 1; last is the line after
	column := 0
	for i := 0; i < len(root.Content); i += 2 {
		if key, value := root.Content[i], root.Content[i+1]; key.Value == "policy" {
			first, column = value.Line, value.Column
			if i+2 < len(root.Content) {
				last = root.Content[i+2].Line
			}
		}
	}
	var out bytes.Buffer
	line := 0
	for content := range bytes.Lines(text) {
		line++
		switch {
		case line == first:
			out.WriteString(strings.Repeat(" ", column-1))
			out.Write(content[min(column-1, len(content)):])
		case first < line && line < last:
			out.Write(content)
		default:
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

// resolve makes paths relative to dir and reads the authority.
func (c *config) resolve(dir string) error {
	for _, path := range []*string{&c.CAFile, &c.TokenFile, &c.StateDir} {
		if *path != "" && *path != stdin && !filepath.IsAbs(*path) {
			*path = filepath.Join(dir, *path)
		}
	}
	if c.CAFile == "" {
		return nil
	}
	pem, err := os.ReadFile(c.CAFile)
	if err != nil {
		return fmt.Errorf("ca_file: %w", err)
	}
	c.roots = x509.NewCertPool()
	if !c.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("ca_file: %s holds no certificate in PEM", c.CAFile)
	}
	return nil
}
