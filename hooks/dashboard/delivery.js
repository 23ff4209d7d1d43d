// One delivery, in a drawer: what came, what became of it, and what can be done.
import { ask, retry } from "./actions.js";
import { inAddress } from "./address.js";
import { answer, code, copyButton, headers } from "./code.js";
import { LABELS, titleOf } from "./deliveries.js";
import { formatDuration, formatSize, parseDate, plural } from "./format.js";
import { inWords, relative } from "./words.js";

/** Opens the drawer. closed is called when it was closed by hand. */
export function openDelivery(state, id, closed) {
	const data = store({ found: null, error: "", loading: false });
	const drawer = new Drawer(state, id, data);
	const title = () => data.found ? titleOf(data.found.delivery) : "Delivery";
	const watchers = [];
	const element = t.div(
		{
			className: "modal lg modelriver-drawer", role: "dialog", ariaModal: "true", ariaLabel: () => "Delivery: " + title(),
			onkeydown: (e) => {
				if (e.key === "Escape" && e.target !== element) app.modals.close(element); // PocketBase does it for the element itself
			},
			onbeforeopen: () => void drawer.load(),
			onafterclose: (_, forced) => {
				page().inert = false;
				watchers.forEach((w) => w.unwatch());
				element.remove();
				setTimeout(() => focusOn(id), 50); // PocketBase gives the focus back, and takes it away again
				closed(forced);
			},
		},
		t.header(
			{ className: "modal-header" },
			t.h2({ className: "modal-title txt-ellipsis" }, title),
			() => data.found && stateLabel(data.found.delivery),
			t.button(
				{ type: "button", className: "btn sm circle transparent m-l-auto", ariaLabel: app.attrs.tooltip("Close", "left"), onclick: () => app.modals.close(element) },
				t.i({ className: "ri-close-line", ariaHidden: true }),
			),
		),
		t.div({ className: "modal-content" }, () => content(state, id, data, drawer)),
		() => data.found && footer(state, data.found.delivery),
	);
	document.body.append(element);
	page().inert = true; // for the keyboard: it is behind the drawer
	watchers.push(watch(() => [state.data.now, state.rows.row(id)], () => drawer.look()));
	app.modals.open(element);
	return element;
}

class Drawer {
	shown = "";

	constructor(state, id, data) {
		Object.assign(this, { state, id, data });
	}

	async load() {
		const { data } = this;
		if (data.loading) return;
		data.loading = true;
		try {
			const found = await this.state.fetch("/api/modelriver/deliveries/" + encodeURIComponent(this.id));
			if (!found?.delivery || !found.timeline) throw new Error("The server is of another version than this page: reload it.");
			this.shown = JSON.stringify(found.delivery);
			data.found = found;
			data.error = "";
		} catch (err) {
			if (err.status === 404) Object.assign(data, { found: null, error: "gone" });
			else if (!err.isAbort) data.error = inWords(err);
		}
		data.loading = false;
	}

	/** Loads it again if it has changed: a payload may be megabytes. */
	async look() {
		const { data, id, state } = this;
		if (data.loading || data.error === "gone") return;
		if (!data.found) return this.load();
		const listed = state.rows.data.ids.includes(id) ? state.rows.row(id) : null; // one that left the list is not kept true
		const now = listed ?? await state.find(data.found.delivery).catch(() => null);
		if (now !== null && JSON.stringify(now) !== this.shown) await this.load();
	}
}

function page() {
	return document.querySelector("main.app");
}

function focusOn(id) {
	const row = document.querySelector(`.modelriver-delivery[data-id="${CSS.escape(id)}"] a`);
	(row ?? document.querySelector(".modelriver-deliveries h2"))?.focus();
}

function stateLabel({ state }) {
	return t.span({ className: "label " + (LABELS[state] ?? "") }, state);
}

function content(state, id, data, drawer) {
	const { error, found } = data;
	if (error === "gone") return t.div(
		{ rid: "gone", className: "alert warning" },
		t.p(null, "There is nothing of this delivery any more: its record and its callback were deleted, or its address is wrong."),
	);
	if (error && !found) return t.div(
		{ rid: "error", className: "alert danger" },
		t.p(null, "The delivery could not be loaded. " + error),
		t.button({ type: "button", className: "btn sm secondary", onclick: () => drawer.load() }, t.span({ className: "txt" }, "Try again")),
	);
	if (!found) return t.div({ rid: "loading", className: "txt-hint" }, "Loading …");
	return [
		summary(found.delivery),
		timeline(state, found),
		payload(found),
		callback(found),
	];
}

function summary(delivery) {
	const { category, channelId, created, event, id, lastError, record, userId } = delivery;
	const filter = (name, value) => value && t.a({ href: "#/modelriver" + inAddress({ [name]: value }) }, value);
	const text = {
		refused: "Its content was refused, by a hook or a check of aiContent, and is not stored. Remove the reason, then ingest it again.",
		deleted: "Its record was deleted.",
	}[delivery.state];
	return t.section(
		{ rid: JSON.stringify(delivery), ariaLabel: "Summary" },
		text && t.p({ className: "alert warning" }, text),
		facts(
			["Received", app.components.formattedDate({ value: created })],
			["Event", filter("event", event)],
			["Category", filter("category", category)],
			["User", filter("user", userId)],
			["Channel", channelId && [filter("search", channelId), copyButton("Copy the channel id", () => channelId)]],
			["Record", record ? [
				record, copyButton("Copy the record's id", () => record), t.a({ href: "#/collections?collection=aiContent&record=" + record }, "Open in PocketBase"),
			] : delivery.state === "deleted" ? "deleted" : "none"],
			["Last error", lastError && t.span({ className: "modelriver-danger" }, lastError)],
			["Delivery", [id, copyButton("Copy the address of this page", () => location.href)]],
		),
	);
}

/** A list of facts, without those that are not there. */
function facts(...rows) {
	return t.dl(
		{ className: "modelriver-about" },
		...rows.filter(([, value]) => value).map(([name, value]) => t.div(null, t.dt({ className: "txt-hint" }, name), t.dd(null, ...[value].flat()))),
	);
}

function timeline(state, { delivery, timeline: rows, timelineMissing, callback: sent }) {
	const hint = (text) => t.p({ className: "txt-hint" }, text);
	const isWaiting = sent?.state === "pending";
	const next = () => delivery.nextAttempt ? `The next attempt is ${relative(parseDate(delivery.nextAttempt), state.data.now)}` : "It is being sent";
	return t.section(
		{ rid: JSON.stringify([delivery, rows]), className: "modelriver-timeline" },
		t.h3(null, "Callback attempts"),
		sent ? undefined : hint("No callback was asked for."),
		sent && !delivery.attempts && !isWaiting ? hint("No attempt was made.") : undefined,
		timelineMissing > 0 ? hint(`${plural(timelineMissing, "attempt")} left no trace here: before an upgrade, cut off by a crash, or more than are kept.`) : undefined,
		rows.length ? t.ol(null, ...rows.map(attempt)) : undefined,
		isWaiting ? t.p({ className: "txt-hint" }, next, sent.expires ? `; it is given up at ${app.utils.toLocalDatetime(sent.expires)}` : "") : undefined,
	);
}

function attempt(row) {
	const isTaken = row.status >= 200 && row.status < 300;
	return t.li(
		null,
		t.div(
			{ className: "modelriver-attempt" },
			t.span({ className: "label sm " + (isTaken ? "success" : "danger") }, row.status || "no answer"),
			t.span(null, app.utils.toLocalDatetime(row.at)),
			t.span({ className: "txt-hint" }, `took ${formatDuration(row.duration)}`),
			row.errorCallback ? t.span({ className: "label sm" }, "error callback") : undefined,
		),
		row.error ? t.div({ className: "txt-sm modelriver-danger modelriver-error" }, row.error) : undefined,
		row.answer ? answer(row.answer) : undefined,
	);
}

function payload({ payload: text, headers: names, scheme, size: bytes, payloadRetention, delivery }) {
	if (text === null) return t.section(
		{ rid: "no payload", className: "modelriver-payload" },
		t.h3(null, "Payload"),
		t.p({ className: "txt-hint" }, payloadRetention
			? `It is not kept any more, or came before payloads were kept. They are kept for ${formatDuration(payloadRetention * 1000)}.`
			: "Payloads are not kept by this server."),
	);
	return t.section(
		{ rid: "payload", className: "modelriver-payload" },
		code("Payload", text, `payload-${delivery.id}.json`, () => facts(
			["Size", formatSize(bytes)],
			["Signature", scheme && ["scheme ", t.code(null, scheme)]],
		)),
		names ? headers(names) : undefined,
	);
}

function callback({ callback: sent }) {
	if (!sent) return;
	return t.section(
		{ rid: sent.url + sent.body, className: "modelriver-callback" },
		sent.body
			? code("Callback as sent", sent.body, "callback.json", () => facts(["To", sent.url]))
			: [t.h3(null, "Callback"), facts(["To", sent.url])],
	);
}

function footer(state, delivery) {
	const { id } = delivery;
	const button = (label, icon, onclick) => t.button(
		{ rid: delivery.state, type: "button", className: () => `btn modelriver-again ${state.data.busy[id] ? "loading" : ""}`, disabled: () => !!state.data.busy[id], onclick },
		t.i({ className: icon, ariaHidden: true }), t.span({ className: "txt" }, label),
	);
	const action = {
		failed: () => button("Retry", "ri-restart-line", () => retry(state, id)),
		refused: () => button("Ingest again", "ri-restart-line", () => retry(state, id, "It is ingested again.")),
		delivered: () => button("Send again", "ri-send-plane-line", () => ask(
			"ModelRiver took this callback. Send it a second time?", "Send again", "Cancel", () => retry(state, id),
		)),
	}[delivery.state];
	if (action) return t.footer({ rid: "footer" + delivery.state, className: "modal-footer" }, t.span({ className: "m-l-auto" }), action());
}
