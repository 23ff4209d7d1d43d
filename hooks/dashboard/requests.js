// The requests on the page "ModelRiver", and what an operator does about them.
import { ask, askAgain, cancel } from "./actions.js";
import { records } from "./figures.js";
import { plural } from "./format.js";
import { REQUESTS } from "./state.js";

/** The requests that are queued or sent. */
export function openRequests(state) {
	return section(state, "open", "Open requests", "No request waits for its answer.", (row) => button(
		state, row, "ri-close-circle-line", `Cancel ${row.workflow}`, () => ask(cancelQuestion(row), "Cancel it", "Let it go on", () => cancel(state, row)),
	));
}

/** The requests that failed. */
export function failedRequests(state) {
	return section(state, "failed", "Failed requests", "No request has failed.", (row) => button(
		state, row, "ri-restart-line", `Ask ${row.workflow} again`, () => ask(againQuestion(row), "Ask again", "Leave it", () => askAgain(state, row)),
	));
}

function section({ data }, kind, title, none, action) {
	const more = () => {
		const total = data.stats?.requests[kind] ?? 0;
		const shown = data.requests[kind].length;
		if (shown > 0 && total > shown) {
			return t.a(
				{ ...records("aiRequests", REQUESTS[kind]), className: "list-item modelriver-more" },
				`The latest ${shown} of ${total.toLocaleString()}: see all in a new tab`,
			);
		}
	};
	return t.section(
		{ className: "modelriver-requests-" + kind },
		t.header({ className: "flex gap-10 m-b-sm" }, t.h2(null, title)),
		t.div(
			{ className: "list" },
			t.div({ className: "list-content" }, () => data.requests[kind].length ? data.requests[kind].map((row) => line(row, action(row))) : t.div({ className: "list-item txt-hint" }, none)),
			more,
		),
	);
}

/** A line, which stays what it is, and keeps the focus, as long as its request does. */
function line(row, action) {
	return t.div(
		{ className: "list-item", rid: JSON.stringify(row) },
		t.div(
			{ className: "content modelriver-item" },
			t.a({ className: "modelriver-open", href: "#/collections?collection=aiRequests&record=" + row.id }, t.strong({ className: "txt-ellipsis" }, row.workflow)),
			t.span({ className: "label sm " + (row.state === "failed" ? "danger" : row.state === "sent" ? "" : "warning") }, row.state === "queued" && !row.nextAttempt ? "being sent" : row.state),
			t.span({ className: "txt-hint txt-sm" }, `${row.userId ? "user " + row.userId : "no user"}, ${plural(row.attempts, "attempt")}`),
			row.error && t.div({ className: "txt-sm modelriver-danger modelriver-error" }, row.error),
		),
		app.components.formattedDate({ value: row.created, short: true }),
		t.div({ className: "actions" }, action),
	);
}

function button({ data }, row, icon, label, onclick) {
	return t.button({
		type: "button", className: () => `btn sm circle transparent secondary ${data.busy[row.id] ? "loading" : ""}`,
		disabled: () => !!data.busy[row.id], ariaLabel: app.attrs.tooltip(label), onclick,
	}, t.i({ className: icon, ariaHidden: true }));
}

function cancelQuestion(row) {
	if (row.state === "queued" && row.nextAttempt) return `Cancel this request of ${row.workflow}? It is not sent then.`;
	return `Cancel this request of ${row.workflow}? It was sent, which costs what it costs: if an answer comes all the same, it is shown.`;
}

function againQuestion(row) {
	const question = `Ask ${row.workflow} again?`;
	if (row.channelId) return `${question} ModelRiver took this request before, so that costs a second time.`;
	if (row.expires) return `${question} Nobody knows whether ModelRiver took this request. If it did, you pay twice, and its answer may still come by itself.`;
	return `${question} That may cost money. ModelRiver did not take it before.`;
}
