package modelriver

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// ErrCallbackHost is returned for a callback URL that [Client.Host] refuses.
var ErrCallbackHost = errors.New("callback URL not allowed")

type allowedHost struct {
	name string // lower case, without brackets
	port string // empty on a loopback host that allows any
}

func parseAPIURL(apiURL string) (allowedHost, error) {
	u, err := url.Parse(apiURL)
	if err != nil || !isPlainHost(u.Hostname()) || u.User != nil || strings.ContainsAny(apiURL, "?#") {
		return allowedHost{}, fmt.Errorf("API URL %q: use a form like https://api.modelriver.com", apiURL)
	}
	host := allowedHost{name: strings.ToLower(u.Hostname()), port: portOf(u)}
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(host.name)) {
		return allowedHost{}, fmt.Errorf("API URL %q: only https is allowed, or http to a loopback host", apiURL)
	}
	return host, nil
}

func parseHost(entry string) (allowedHost, error) {
	authority := entry
	if strings.Count(entry, ":") > 1 && !strings.Contains(entry, "[") {
		authority = "[" + entry + "]" // a bare IPv6 address
	}
	u, err := url.Parse("//" + authority)
	if err != nil || !isPlainHost(u.Hostname()) || u.User != nil || u.Path != "" || u.RawQuery != "" || u.Fragment != "" {
		return allowedHost{}, fmt.Errorf("callback host %q: use host or host:port", entry)
	}
	host := allowedHost{name: strings.ToLower(u.Hostname()), port: u.Port()}
	if host.port == "" && !isLoopback(host.name) {
		host.port = "443"
	}
	return host, nil
}

// Host returns the host and port of a callback URL that the client would send to. It
// returns [ErrCallbackHost], and why, for any other: a host that is not one of its
// own, or a scheme other than https (http is for loopback hosts).
func (c *Client) Host(callbackURL string) (string, error) {
	u, err := url.Parse(callbackURL)
	if err != nil || !isPlainHost(u.Hostname()) || u.User != nil {
		return "", fmt.Errorf("%w: not a plain https URL", ErrCallbackHost)
	}
	name, port := strings.ToLower(u.Hostname()), portOf(u)
	if u.Scheme != "https" && (u.Scheme != "http" || !isLoopback(name)) {
		return "", fmt.Errorf("%w: scheme %q is not https", ErrCallbackHost, u.Scheme)
	}
	hostPort := net.JoinHostPort(name, port)
	for _, host := range c.hosts {
		if host.name == name && (host.port == port || host.port == "") {
			return hostPort, nil
		}
	}
	return "", fmt.Errorf("%w: host %q is not one that may get the API key", ErrCallbackHost, hostPort)
}

func portOf(u *url.URL) string {
	if port := u.Port(); port != "" {
		return port
	}
	if u.Scheme == "http" {
		return "80"
	}
	return "443"
}

// isPlainHost reports whether host is an ASCII name or an IP address. Other letters
// have lower-case forms here that differ from the name that would be looked up, so
// that another host could pass for one that is allowed.
func isPlainHost(host string) bool {
	return host != "" && !strings.ContainsFunc(host, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(".-_:", r))
	})
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
