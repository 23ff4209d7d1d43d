// The card of the page "ModelRiver" that says which webhooks were rejected, and what helps.
import { copied } from "./copied.js";
import { Fetched } from "./fetched.js";
import { formatCount, formatSize, formatTime, midnight, plural, webhookURL } from "./format.js";

/** What a webhook is rejected for, in words. */
const REASONS = {
	signature: "The signature is wrong",
	unsigned: "There is no signature",
	stale: "The timestamp is too far from this server's clock",
	tooLarge: "The payload is too large",
	compressed: "The payload is compressed",
	notJson: "The payload is not a JSON object",
	noSecret: "The server has no secret to compare with",
	schema: "A collection is not as the plugin needs it",
	database: "The database could not be written",
	replica: "The replica did not have it in time",
};

/** Of these the doctor finds out whether the way is at fault: it signs with the server's own secret. */
const TO_DOCTOR = ["signature", "unsigned"];

export function rejections(state) {
	const { data } = state;
	const fetched = new Fetched(state, "/api/modelriver/rejections", "reasons", () => ({ since: midnight() }), ({ rejected }) => rejected);
	const rejected = () => data.stats?.rejected ?? {};
	return t.section(
		{
			className: () => `modelriver-rejected m-b-base ${urgency(rejected())}`,
			ariaLabel: "Rejected webhooks", onmount: () => fetched.mount(), onunmount: () => fetched.unmount(),
		},
		t.h2({ ariaLive: "polite" }, () => heading(rejected())),
		() => reasonList(rejected(), fetched.data.answer, data.stats),
		() => fetched.problem(),
		latest(fetched.data),
	);
}

/** How the card looks. Anybody can send what has no signature, so that alone is no reason to be alarmed. */
function urgency({ today = 0, lastHour = 0, unsignedToday = 0, unsignedLastHour = 0 }) {
	if (today <= unsignedToday) return "calm";
	return lastHour > unsignedLastHour ? "alert danger" : "alert warning";
}

function heading({ today, lastHour }) {
	if (today == null) return "Rejected webhooks …";
	if (!today) return [t.i({ className: "ri-shield-check-line txt-success", ariaHidden: true }), " No webhook was rejected today"];
	return `${plural(today, "webhook")} ${today === 1 ? "was" : "were"} rejected today, ${lastHour ? formatCount(lastHour) : "none"} in the last hour`;
}

/** Each reason of the last 24 hours with what to do. Until it is told of them, the latest. */
function reasonList({ today, last, reason, remedy }, answer, stats) {
	if (!today) return;
	const reasons = answer?.reasons.length ? answer.reasons : [{ reason, last, remedy }];
	return t.div(
		null,
		t.ul({ className: "modelriver-reasons" }, ...reasons.map((row) => t.li(
			null,
			t.strong(null, REASONS[row.reason] ?? row.reason),
			row.count ? ` – ${formatCount(row.count)} in the last 24 hours, the last at ${formatTime(row.last)}` : null,
			t.p(null, row.error ? `Error: ${row.error}. ` : null, t.strong(null, "What to do: "), sentence(row.remedy)),
		))),
		reasons.some(({ reason }) => TO_DOCTOR.includes(reason))
			? t.p(null, "This tells whether something on the way changes signatures, run where the server is and with its environment: ", doctor(stats)) : null,
	);
}

function doctor(stats) {
	return copied(`./pocketriver modelriver doctor --url ${webhookURL(stats)}`, "Copy the command");
}

function latest(data) {
	const rows = () => data.answer?.latest ?? [];
	return t.details(
		{ hidden: () => !rows().length },
		t.summary(null, () => rows().length === 1 ? "The last one since the server started" : `The last ${rows().length} since the server started`),
		t.ol({ className: "modelriver-latest" }, () => rows().map((row) => t.li(
			null,
			t.span({ className: "modelriver-when" }, formatTime(row.at)),
			t.strong(null, REASONS[row.reason] ?? row.reason),
			t.span(null, `from ${row.from || "nobody knows where"}`),
			t.span(null, row.scheme ? `signature scheme ${row.scheme}` : "no signature scheme"),
			row.size ? t.span(null, formatSize(row.size)) : null,
			t.span(null, row.userAgent || "no user agent"),
		))),
	);
}

function sentence(text = "") {
	return text.charAt(0).toUpperCase() + text.slice(1) + (/[.?!]$/.test(text) ? "" : ".");
}
