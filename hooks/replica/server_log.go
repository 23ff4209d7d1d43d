package replica

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
)

// A natsLogger puts what the server says into the app's logs.
type natsLogger struct{ *streamLog }

// Fatalf is told what a server that is a process of its own ends with.
func (l natsLogger) Fatalf(format string, v ...any) {
	l.fatal.Store(true)
	l.Errorf(format, v...)
}

func (l natsLogger) Errorf(format string, v ...any) {
	l.log(slog.LevelError, "The log's server tells of an error", "error", fmt.Sprintf(format, v...))
}

func (l natsLogger) Warnf(format string, v ...any) {
	l.log(slog.LevelWarn, "The log's server warns", "warning", fmt.Sprintf(format, v...))
}

// usual has parts of what the server of several nodes says at each start, also if all is well, and of what it says again and again of
// nodes with another log, and of twins. A node tells itself for which others it waits, who follows another log, and which twin it turns away.
var usual = []string{
	"Error trying to connect to route (attempt 1)", // to a node that starts a moment later
	"Waiting for routing to be established",
	"JetStream has not established contact with a meta leader",
	"Metalayer blocking snapshot",
	"Rejecting connection, cluster name",
	"cluster name from remote server conflicts",
	"TLS route handshake error", // again each second: see sayAway
	"TLS handshake timeout",
	"authentication error",
	"Authorization Violation",
}

func (l natsLogger) log(level slog.Level, message, key, text string) {
	if slices.ContainsFunc(usual, func(part string) bool { return strings.Contains(text, part) }) {
		level = slog.LevelDebug
	}
	l.logger().Log(context.Background(), level, message, key, text)
}

func (l natsLogger) Noticef(format string, v ...any) {
	l.logger().Debug("The log's server says", "notice", fmt.Sprintf(format, v...))
}

func (l natsLogger) Debugf(string, ...any) {}

func (l natsLogger) Tracef(string, ...any) {}
