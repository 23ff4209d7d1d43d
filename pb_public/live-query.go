// Package public lets the plugin's page in the dashboard share live-query.js with the
// feed page.
package public

import _ "embed"

// LiveQuery is live-query.js. It needs nothing but a client of the PocketBase JS SDK.
//
//go:embed live-query.js
var LiveQuery []byte
