// What the page "ModelRiver" says above its lists, of the figures the server gives.

/** What is still to be done before webhooks arrive. */
export function setUp(stats) {
	if (!stats || (stats.secretSet && stats.keySet && !stats.problem)) return;
	const step = (done, ...content) => t.li(
		{ className: done ? "txt-hint" : "" },
		t.i({ className: done ? "ri-checkbox-circle-line txt-success" : "ri-checkbox-blank-circle-line", ariaHidden: true }),
		t.span(null, ...content, done ? " (done)" : ""),
	);
	return t.section(
		{ className: "alert warning modelriver-setup m-b-base", ariaLabel: "Set-up" },
		t.h2(null, stats.problem ? "Webhooks cannot be stored" : "Finish the set-up"),
		stats.problem && t.p(null, stats.problem + "."),
		t.ol(
			null,
			step(false, "In ModelRiver's console, create a webhook to ", t.code(null, webhookURL(stats)), app.components.copyButton(webhookURL(stats)),
				location.protocol === "https:" ? "" : " (ModelRiver must be able to reach this address.)"),
			step(stats.secretSet, "Start the server with the webhook's signing secret in ", t.code(null, "MODELRIVER_WEBHOOK_SECRET"),
				". Until then every webhook is answered 503, and ModelRiver tries again."),
			step(stats.keySet, "Start the server with a project key in ", t.code(null, "MODELRIVER_API_KEY"),
				". Until then callbacks wait, and fail after their window, by default 5 minutes."),
		),
	);
}

/** That webhooks were rejected, and what helps. */
export function rejections(stats) {
	const { count, last, reason, remedy } = stats?.rejected ?? {};
	if (!count) return;
	return t.section(
		{ className: "alert danger modelriver-rejected m-b-base", ariaLabel: "Rejected webhooks" },
		t.h2(null, `${count.toLocaleString()} ${count === 1 ? "webhook was" : "webhooks were"} rejected since the server started`),
		t.p(null, `The last at ${app.utils.toLocalDatetime(last)}: ${reason}. Remedy: ${remedy}.`),
	);
}

function webhookURL(stats) {
	return location.origin + stats.path;
}

/** Whether there are requests: most apps never ask. */
export function isAsked(stats) {
	const { open, failed, answered } = stats?.requests ?? {};
	return !!(open || failed || answered);
}

/** The figures of the day. */
export function figures(stats) {
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
