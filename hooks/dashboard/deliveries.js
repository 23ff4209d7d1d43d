// The list of deliveries on the page "ModelRiver".
import { ask, retry, retryAll } from "./actions.js";
import { inAddress, isFiltered } from "./address.js";
import { copied } from "./copied.js";
import { filters } from "./filters.js";
import { formatDuration, parseDate, plural, webhookURL } from "./format.js";
import { moment, relative, time } from "./words.js";

export const LABELS = { delivered: "success", failed: "danger", refused: "danger", waiting: "warning" };

/** The list, its filters, and what leads to older and newer ones. */
export function deliveries(state) {
	const { rows } = state;
	return t.section(
		{ className: "modelriver-deliveries m-b-base" },
		t.header(
			{ className: "modelriver-head m-b-sm" },
			t.h2({ tabIndex: -1 }, "Deliveries"),
			retryAllButton(state),
		),
		filters(state),
		t.div({ className: "modelriver-newer", role: "status" }, () => newer(rows)),
		t.div(
			{ className: "list", ariaBusy: () => String(rows.data.loading), onpointermove: () => rows.pointed = Date.now() },
			() => rows.data.loaded ? rows.data.ids.map((id) => line(state, id)) : undefined,
			() => instead(state),
		),
		more(state),
	);
}

function newer(rows) {
	const { newer: n } = rows.data;
	if (!n) return;
	const show = () => {
		rows.showLatest();
		const title = document.querySelector(".modelriver-deliveries h2");
		title.focus({ preventScroll: true });
		title.scrollIntoView();
	};
	return t.button(
		{ rid: "newer", type: "button", className: "btn sm", onclick: show },
		t.i({ className: "ri-arrow-up-line", ariaHidden: true }),
		t.span({ className: "txt" }, `${n === 200 ? "200 or more" : n} newer: show`),
	);
}

function line(state, id) {
	const row = () => state.rows.row(id);
	return t.div(
		{ className: "list-item modelriver-delivery", rid: id, "html-data-id": id },
		time(row().created, state),
		t.div(
			{ className: "content modelriver-item" },
			t.a(
				{ className: "modelriver-open", href: () => "#/modelriver" + inAddress({ ...state.data.query, id }) },
				t.strong({ className: "txt-ellipsis" }, () => titleOf(row())),
			),
			() => labels(row()),
		),
		t.div(
			{ className: "modelriver-life" },
			() => t.span({ className: "label sm " + (LABELS[row().state] ?? "") }, row().state),
			t.span({ className: "txt-hint txt-sm" }, () => life(row(), state.data.now)),
			() => row().lastError && row().state !== "delivered" ? t.div({ className: "txt-sm modelriver-danger modelriver-error" }, row().lastError) : undefined,
		),
		t.div({ className: "actions" }, () => retryButton(state, row())),
	);
}

function labels({ event, category, userId }) {
	return [
		event && t.span({ className: "label sm" }, event),
		category && t.span({ className: "label sm" }, category),
		userId && t.span({ className: "label sm" }, t.i({ className: "ri-user-line", ariaHidden: true }), t.span({ className: "txt" }, userId)),
	].filter(Boolean);
}

/** What a delivery is called. */
export function titleOf({ title, state }) {
	return title || (state === "deleted" ? "Its record was deleted" : "Untitled");
}

/** What became of a webhook, in a line. */
export function life(row, now) {
	const count = row.attempts ? `, ${plural(row.attempts, "attempt")}` : "";
	const answer = row.lastStatus ? `, last answer ${row.lastStatus}` : "";
	switch (row.state) {
		case "delivered":
			return `received → stored → called back${row.took === null ? "" : " after " + formatDuration(row.took)}${count}`;
		case "waiting":
			return `received → stored → ${row.nextAttempt && row.attempts ? "tries again " + relative(parseDate(row.nextAttempt), now) : "is called back"}${count}${answer}`;
		case "failed":
			return `received → stored → not called back${count}${answer}`;
		case "refused":
			return `received → refused, not stored${count}${answer}`;
		case "deleted":
			return `received → stored → deleted${count}${answer}`;
		default:
			return "received → stored, no callback was asked for";
	}
}

function retryButton(state, row) {
	const { id, state: is } = row;
	if (is !== "failed" && is !== "refused") return;
	const [label, done] = is === "failed" ? ["Retry " + titleOf(row)] : ["Ingest again " + titleOf(row), "It is ingested again."];
	return t.button({
		rid: id + is, type: "button", className: () => `btn sm circle transparent secondary modelriver-retry ${state.data.busy[id] ? "loading" : ""}`,
		disabled: () => !!state.data.busy[id], ariaLabel: app.attrs.tooltip(label), onclick: () => retry(state, id, done),
	}, t.i({ className: "ri-restart-line", ariaHidden: true }));
}

function retryAllButton(state) {
	const { data } = state;
	const text = () => {
		if (data.retrying) return `${data.retrying.done} of ${data.retrying.total}`;
		return data.stats?.failed === 1 ? "Retry the failed one" : `Retry all ${data.stats?.failed} failed`;
	};
	const question = () => `Send ${data.stats.failed === 1 ? "the failed callback" : data.stats.failed + " failed callbacks"} again?`;
	return t.button(
		{
			type: "button",
			hidden: () => !data.stats?.failed && !data.retrying,
			disabled: () => !!data.retrying,
			className: "btn sm secondary m-l-auto modelriver-retry-all",
			onclick: () => ask(question(), "Send again", "Cancel", () => retryAll(state)),
		},
		t.i({ className: "ri-restart-line", ariaHidden: true }),
		t.span({ className: "txt" }, text),
	);
}

/** What stands where there are no rows. */
function instead(state) {
	const { data, rows } = state;
	const { ids, loaded, loading, error, next } = rows.data;
	if (loaded && ids.length) return;
	if (error && !loaded) return hint(
		"error",
		t.span({ className: "modelriver-danger" }, "The list could not be loaded. " + error),
		button("Try again", () => rows.reload(true)),
	);
	if (!loaded || !data.stats) return hint("loading", "Loading …");
	if (next) return; // it looks further back
	if (isFiltered(data.query)) return hint("none", "No delivery is like that.", button("Clear the filters", () => state.go({})));
	if (data.stats.rejected?.last) return hint("rejected", "Nothing is stored yet: webhooks are rejected, see above.");
	return hint("empty", nothing(data.stats));
}

function nothing(stats) {
	const isUsual = ["http://127.0.0.1:8090", "http://localhost:8090"].includes(location.origin);
	const command = "./pocketriver modelriver send" + (isUsual ? "" : ` --url ${webhookURL(stats)}`);
	return t.div(
		null,
		"Nothing has arrived yet. Point a ModelRiver webhook at ", copied(webhookURL(stats), "Copy the webhook URL"),
		", or send a sample from a terminal that has the server's MODELRIVER_WEBHOOK_SECRET: ",
		copied(command, "Copy the command"),
	);
}

function hint(rid, ...content) {
	return t.div({ rid, className: "list-item txt-hint modelriver-hint" }, ...content);
}

function button(label, onclick) {
	return t.button({ type: "button", className: "btn sm secondary", onclick }, t.span({ className: "txt" }, label));
}

/** The end of the list, which loads what is older when it comes into view. */
function more({ rows }) {
	const { data } = rows;
	let watcher;
	let seen;
	const look = () => { if (seen) rows.more(); };
	return t.div(
		{
			className: "modelriver-older", hidden: () => !data.loaded || !data.next,
			onmount: (el) => {
				const observer = new IntersectionObserver(([entry]) => {
					seen = entry.isIntersecting;
					look();
				});
				observer.observe(el);
				const again = watch(() => [data.next, data.loading], look); // it may still be in view
				watcher = () => { observer.disconnect(); again.unwatch(); };
			},
			onunmount: () => watcher(),
		},
		t.button(
			{ type: "button", className: () => "btn sm secondary " + (data.loading ? "loading" : ""), onclick: () => rows.more(true) },
			t.span({ className: "txt" }, () => data.searchedTo ? "Look further back" : "Load older ones"),
		),
		t.span({ className: "txt-hint txt-sm", role: "status" }, () => {
			if (data.error) return data.error;
			const searched = data.searchedTo && `Looked back to ${moment(data.searchedTo)}. `;
			return `${searched}${data.ids.length.toLocaleString()} ${data.ids.length === 1 ? "is" : "are"} shown.`;
		}),
	);
}
