// The item that is open: the one that the address names, which is found wherever it is; else,
// where there is room beside the list, the one that was the newest.
import { drawItem, newChoice } from "./item.js";
import { liveQuery } from "./live-query.js";
import { make, replace } from "./nodes.js";
import { $, address, pb, view, wide } from "./view.js";

let newest = ""; // when nothing was open: what comes later does not take its place
let shown = null; // { row, node, choice }
let followed = ""; // what is not in the list
let stop = () => {};
let listed = [];

/** Shows the open item, which may be one of the list's rows. */
export function showOpen(rows = listed) {
	listed = rows;
	if (wide.matches && !view.item) newest ||= rows[0]?.id ?? "";
	const id = view.item || (wide.matches ? newest : "");
	const row = id && rows.find((row) => row.id === id);
	if (!id || row) unfollow();
	if (row) show(row);
	else if (!id) clear();
	else if (followed !== id) follow(id);
	document.body.classList.toggle("one", !!view.item);
	for (const link of $("feed").querySelectorAll("[data-item]")) link.ariaCurrent = link.dataset.item === id ? "true" : null;
}

/** Leaves nothing of the open item, and forgets which it was. */
export function forgetOpen() {
	unfollow();
	clear();
	newest = "";
	listed = [];
}

function follow(id) {
	unfollow();
	if (shown?.row.id !== id) clear(); // one that has only left the list stays
	followed = id;
	stop = liveQuery(pb, "aiContent", { filter: `id = ${JSON.stringify(id)}`, limit: 1 }, ({ items: [row], status }) => {
		if (row) show(row);
		else if (status === "live" || status === "failed") showMissing();
		else if (status === "connecting" && shown) clear(); // somebody else is signed in
	});
}

function unfollow() {
	stop();
	stop = () => {};
	followed = "";
}

function clear() {
	shown = null;
	$("reading").hidden = true;
	$("reading").replaceChildren();
}

function show(row) {
	if (shown?.row === row) return;
	const before = shown?.row.id === row.id ? shown : null;
	const choice = before?.choice ?? newChoice(true);
	const node = drawItem(row, choice, before?.node);
	shown = { row, node, choice };
	if (before) return replace(before.node, node);
	fill(node);
}

function fill(...nodes) {
	$("reading").hidden = false;
	$("reading").replaceChildren(make("a", { className: "back", href: address({ item: "" }), "data-item": "" }, "← Back to the feed"), ...nodes);
	$("reading").scrollTop = 0;
}

/** Says that there is nothing, and not whether there is for somebody else. */
function showMissing() {
	if (!view.item) {
		newest = "";
		unfollow();
		showOpen();
		return;
	}
	shown = null;
	const guest = !pb.authStore.isValid;
	fill(make("h2", {}, "Nothing to read here"), make("p", {}, guest
		? "No public content has this address. If it was made for you, sign in. Otherwise it was deleted, or the address is wrong."
		: "You have no content with this address. It was deleted, or the address is wrong, or it is for somebody else."));
	if (guest) $("reading").append(make("button", { type: "button", "data-sign": "" }, "Sign in"));
}
