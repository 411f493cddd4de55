package policy

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

const (
	keyReadOnly   = "read_only"
	keyNamespaces = "allowed_namespaces"
	keyResources  = "deny_resources"
	keyVerbs      = "allowed_verbs"
)

var (
	readVerbs  = []string{"get", "list", "watch"}
	writeVerbs = []string{"create", "delete", "deletecollection", "patch", "update"}
)

// Kubernetes is the kubernetes block of a document: what of a Kubernetes API its owner
// lets pass. This package reads it; whoever serves the API keeps it. A nil Kubernetes,
// that of a document without the block, lets nothing pass. It never changes.
type Kubernetes struct {
	readOnly   bool
	everywhere bool // no list of namespaces
	namespaces []string
	resources  []string
	verbs      []string
}

// ReadOnly reports whether nothing may be changed, whatever the verbs say.
func (k *Kubernetes) ReadOnly() bool { return k == nil || k.readOnly }

// AllowsVerb reports whether a request with this verb of the API, such as "list", may
// pass.
func (k *Kubernetes) AllowsVerb(verb string) bool { return k != nil && slices.Contains(k.verbs, verb) }

// AllowsNamespace reports whether a request for this namespace may pass. The empty
// namespace stands for a request that is not about one, or about all of them: it passes
// when namespaces are not restricted.
func (k *Kubernetes) AllowsNamespace(namespace string) bool {
	return k != nil && (k.everywhere || namespace != "" && slices.Contains(k.namespaces, namespace))
}

// DeniesResource reports whether a resource is denied, in the words of the API:
// ("", "pods", "exec"), ("apps", "deployments", ""). An entry without a group denies the
// resource in every group, and one without a subresource all that is below it.
func (k *Kubernetes) DeniesResource(group, resource, subresource string) bool {
	if k == nil {
		return true
	}
	names := []string{resource}
	if group != "" {
		names = append(names, resource+"."+group)
	}
	for _, name := range names {
		if slices.Contains(k.resources, name) || subresource != "" && slices.Contains(k.resources, name+"/"+subresource) {
			return true
		}
	}
	return false
}

func readKubernetes(n *yaml.Node) (*Kubernetes, error) {
	if n == nil {
		return nil, nil
	}
	fields, err := readMapping(n, keyReadOnly, keyNamespaces, keyResources, keyVerbs)
	if err != nil {
		return nil, err
	}
	k := &Kubernetes{readOnly: true, everywhere: true, verbs: readVerbs}
	if n, ok := fields[keyReadOnly]; ok {
		if k.readOnly, err = readBool(n, keyReadOnly); err != nil {
			return nil, err
		}
	}
	if !k.readOnly {
		k.verbs = sortedVerbs()
	}
	if n, ok := fields[keyNamespaces]; ok {
		k.everywhere = false
		if k.namespaces, err = readStrings(n, keyNamespaces, labelFault); err != nil {
			return nil, err
		}
	}
	if n, ok := fields[keyResources]; ok {
		if k.resources, err = readStrings(n, keyResources, resourceFault); err != nil {
			return nil, err
		}
	}
	if n, ok := fields[keyVerbs]; ok {
		if k.verbs, err = readStrings(n, keyVerbs, k.verbFault); err != nil {
			return nil, err
		}
	}
	return k, nil
}

func sortedVerbs() []string {
	all := slices.Concat(readVerbs, writeVerbs)
	slices.Sort(all)
	return all
}

func (k *Kubernetes) verbFault(verb string) string {
	switch {
	case slices.Contains(readVerbs, verb):
		return ""
	case !slices.Contains(writeVerbs, verb):
		return "the verbs are " + strings.Join(sortedVerbs(), ", ")
	case k.readOnly:
		return "it changes something; write " + keyReadOnly + ": false to allow that"
	}
	return ""
}

// labelFault says why a name is no namespace (RFC 1123 label).
func labelFault(s string) string {
	if s == "" || len(s) > maxLabel || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || s[0] == '-' || s[len(s)-1] == '-' {
		return "a namespace is a label of a-z, 0-9 and hyphens"
	}
	return ""
}

// resourceFault says why a name is not resource[.group][/subresource].
func resourceFault(s string) string {
	name, subresource, isSub := strings.Cut(s, "/")
	resource, group, isGrouped := strings.Cut(name, ".")
	switch {
	case labelFault(resource) != "", isSub && labelFault(subresource) != "":
	case isGrouped && slices.ContainsFunc(strings.Split(group, "."), func(label string) bool { return labelFault(label) != "" }):
	default:
		return ""
	}
	return `a resource is written as its plural in lower case, with its group and subresource if need be, such as "secrets", "pods/exec" or "deployments.apps/scale"`
}

// source is the block as Parse reads it.
func (k *Kubernetes) source() string {
	if k == nil {
		return ""
	}
	s := keyKube + ":\n  " + keyReadOnly + ": " + strconv.FormatBool(k.readOnly) + "\n"
	if !k.everywhere {
		s += "  " + keyNamespaces + ": [" + joinQuoted(k.namespaces) + "]\n"
	}
	if len(k.resources) > 0 {
		s += "  " + keyResources + ": [" + joinQuoted(k.resources) + "]\n"
	}
	return s + "  " + keyVerbs + ": [" + joinQuoted(k.verbs) + "]\n"
}
