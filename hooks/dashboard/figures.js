// The figures on the page "ModelRiver".

/** Whether there are requests: most apps never ask. */
export function isAsked(stats) {
	const { open, failed, answered } = stats?.requests ?? {};
	return !!(open || failed || answered);
}

/** The figures of the day. */
export function figures({ data }) {
	return () => dayFigures(data.stats);
}

function dayFigures(stats) {
	const s = stats ?? {};
	return list(
		stats,
		["Received today", count(s.received), "Events with AI data, each counted once however often it was sent"],
		["Stored today", count(s.stored), "New records in aiContent"],
		["Delivered today", count(s.delivered), "Callbacks that ModelRiver accepted"],
		["Waiting", count(s.waiting), "Callbacks that are still to be sent"],
		["Failed", count(s.failed), "Callbacks of any day, until they are retried or deleted", s.failed ? "modelriver-danger" : ""],
		["Median callback", s.median == null ? "–" : duration(s.median), "From the webhook to ModelRiver's answer, of the latest 1,000 that came within the callback window"],
	);
}

/** The figures of requests, as long as these are kept. */
export function requestFigures(stats) {
	const { open, failed, median } = stats?.requests ?? {};
	return list(
		stats,
		["Open requests", count(open), "Requests that are queued, or sent and not answered yet"],
		["Failed requests", count(failed), "Requests that failed, until they are asked again or deleted", failed ? "modelriver-danger" : ""],
		["Median answer", median == null ? "–" : duration(median), "From the request to its answer, of the latest 1,000 that were answered"],
	);
}

function list(stats, ...rows) {
	return t.dl(
		{ className: "modelriver-figures m-b-base" },
		...rows.map(([label, value, hint, kind = ""]) => t.div(
			{ className: "modelriver-figure", ariaDescription: app.attrs.tooltip(hint, "top") },
			t.dt({ className: "txt-hint" }, label),
			t.dd({ className: kind }, stats ? value : "…"),
		)),
	);
}

function count(n) {
	return (n ?? 0).toLocaleString();
}

function duration(ms) {
	return ms < 1000 ? `${ms} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${(ms / 60_000).toFixed(1)} min`;
}
