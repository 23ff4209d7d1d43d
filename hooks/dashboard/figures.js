// The figures of the page "ModelRiver". Each is a link to what it counts.
import { inAddress } from "./address.js";
import { formatCount, formatDuration, parseDate } from "./format.js";
import { REQUESTS } from "./state.js";

/** The figures of the day. */
export function figures(state) {
	return () => {
		const { stats } = state.data;
		const s = stats ?? {};
		const today = s.since ? { from: parseDate(s.since).toISOString() } : {};
		return figureList(
			"Figures of today", stats,
			["Received today", formatCount(s.received), "Events with AI data, each counted once however often it was sent", deliveries(today)],
			["Stored today", formatCount(s.stored), "New records in aiContent. Opens them in a new tab", records("aiContent", `created >= "${s.since}"`)],
			["Refused today", formatCount(s.refused), "Events that the app's hooks or rules did not let in", deliveries({ state: "refused", ...today }), s.refused],
			["Delivered today", formatCount(s.delivered), "Callbacks that ModelRiver accepted", deliveries({ state: "delivered", ...today })],
			["Waiting", formatCount(s.waiting), "Callbacks that are still to be sent", deliveries({ state: "waiting" })],
			["Failed", formatCount(s.failed), "Callbacks of any day, until they are retried or deleted", deliveries({ state: "failed" }), s.failed],
			["Median callback", formatDuration(s.median), "From the webhook to ModelRiver's answer, of the latest 1,000 that came within the callback window", deliveries({ state: "delivered" })],
		);
	};
}

/** The figures of requests, as long as these are kept. */
export function requestFigures(stats) {
	const { open, failed, median } = stats?.requests ?? {};
	return figureList(
		"Figures of requests", stats,
		["Open requests", formatCount(open), "Requests that are queued, or sent and not answered yet. Opens them in a new tab", records("aiRequests", REQUESTS.open)],
		["Failed requests", formatCount(failed), "Requests that failed, until they are asked again or deleted. Opens them in a new tab", records("aiRequests", REQUESTS.failed), failed],
		["Median answer", formatDuration(median), "From the request to its answer, of the latest 1,000 that were answered. Opens them in a new tab", records("aiRequests", `state = "answered"`)],
	);
}

/** The list's address with a filter. */
function deliveries(filter) {
	return { href: "#/modelriver" + inAddress(filter) };
}

/** The records of a collection. The page that is open drops a filter on its way to another collection. */
export function records(collection, filter) {
	return { href: `#/collections?collection=${collection}&filter=${encodeURIComponent(filter)}`, target: "_blank", rel: "noopener" };
}

function figureList(label, stats, ...rows) {
	return t.section(
		{ ariaLabel: label, className: "m-b-base" },
		t.dl({ className: "modelriver-figures" }, ...rows.map(([name, value, hint, link, alarming]) => t.div(
			{ className: "modelriver-figure" },
			t.dt({ className: "txt-hint" }, t.a({ ...link, ariaDescription: app.attrs.tooltip(hint, "top") }, name)),
			t.dd({ className: alarming ? "modelriver-danger" : "" }, stats ? value : "…"),
		))),
	);
}
