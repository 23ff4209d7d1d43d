// Package public lets the plugin's page in the dashboard share live-query.js with the
// feed page.
package public

import "embed"

// LiveQuery has the files of live-query.js: itself, and what it imports. They need
// nothing but a client of the PocketBase JS SDK.
//
//go:embed live-*.js
var LiveQuery embed.FS
