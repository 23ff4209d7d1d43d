// The feed page: aiContent as it arrives, through liveQuery. This is its list; what the list
// is for stands in the other files.
import { confirmSession, showAccount } from "./account.js";
import { offerAsking } from "./ask-box.js";
import { showState } from "./connection.js";
import { showEmpty } from "./empty.js";
import { offerFilters, remember, showFilters } from "./filters.js";
import { age, drawItem, drawLine, newChoice } from "./item.js";
import { liveQuery } from "./live-query.js";
import { make, replace } from "./nodes.js";
import { forgetOpen, showOpen } from "./open-item.js";
import { $, address, currentViewer, filter, pb, readAddress, view, wide } from "./view.js";

const STEP = 20; // rows at first, and with each "load more"
const MOST = 999; // PocketBase lists 1000 at most, and one tells that there are more

let limit = STEP;
let stop = () => {};
let last = { items: [], status: "connecting", error: null };
const cards = new Map(); // id -> { row, node, choice }

/** Shows the list that view asks for, from now on. */
function start() {
	history.replaceState(null, "", address());
	showFilters();
	stop();
	$("feed").ariaBusy = "true";
	let known = false; // what the list was: only what comes after is new
	stop = liveQuery(pb, "aiContent", { filter: filter(), limit: limit + 1 }, (result) => {
		if (checkViewer()) return;
		const listed = result.status === "live" || result.items.length > 0;
		if (!listed && last.items.length) known = false; // it was emptied for somebody else
		// Until the new list is there, the old one stays.
		last = !known && !listed && result.status === "offline" ? { ...result, items: last.items } : result;
		show(last, known);
		known ||= listed;
	});
	if (view.item) showOpen();
}

function show({ items, status, error }, announce) {
	const rows = items.slice(0, limit);
	const fresh = list(rows, announce);
	$("feed").ariaBusy = "false";
	$("more").hidden = items.length <= limit || limit >= MOST;
	if (fresh.length) tell(fresh);
	showOpen(rows);
	showState(status, error);
	showEmpty(!rows.length && (status === "live" || (announce && status === "connecting")));
}

/** Makes the page's list that of the rows, and returns those that are new. */
function list(rows, announce) {
	const fresh = [];
	const ids = new Set(rows.map((row) => row.id));
	for (const [id, { node }] of cards) {
		if (ids.has(id)) continue;
		node.remove();
		cards.delete(id);
	}
	let place = $("feed").firstElementChild;
	let above = announce; // what comes above the rows that were there is new
	for (const row of rows) {
		let card = cards.get(row.id);
		if (card) above = false;
		if (card?.row !== row) {
			const choice = card?.choice ?? newChoice(!!view.channel);
			const node = make("li", {}, wide.matches ? drawLine(row) : drawItem(row, choice, card?.node));
			if (card) {
				if (place === card.node) place = node;
				replace(card.node, node);
			} else if (above) {
				fresh.push(row);
				node.classList.add("new");
			}
			card = { row, node, choice };
			cards.set(row.id, card);
			remember(row);
		}
		if (card.node === place) place = place.nextElementSibling;
		else $("feed").insertBefore(card.node, place);
	}
	return fresh;
}

/** Tells of new rows to who listens, and to who has scrolled away. */
function tell(fresh) {
	$("news").textContent = fresh.length === 1 ? `New: ${fresh[0].title}` : `${fresh.length} new`;
	if (scrollY < 300) return;
	const button = $("fresh");
	button.count = (button.hidden ? 0 : button.count) + fresh.length;
	button.textContent = `↑ ${button.count} new`;
	button.hidden = false;
}

/** Shows another list. */
function change(changed) {
	Object.assign(view, { item: "" }, changed);
	forgetOpen();
	limit = STEP;
	start();
}

let viewer = currentViewer();

/** Begins anew if somebody else is signed in, or nobody any more: a session may end by itself. */
function checkViewer() {
	if (currentViewer() === viewer) return false;
	showAccount();
	// Nothing of the one before stays, in no corner.
	viewer = currentViewer();
	last = { ...last, items: [] };
	forgetOpen();
	show(last);
	$("news").textContent = "";
	change({ item: view.item, ...(viewer ? { mine: "" } : { q: "", category: "", event: "", mine: "" }) });
	offerFilters();
	offerAsking(pb);
	return true;
}
pb.authStore.onChange(() => checkViewer() || showAccount());
setInterval(() => {
	document.querySelectorAll("#feed time, #reading time").forEach(age);
	checkViewer();
}, 20_000);

let listTop = 0; // how far the list is scrolled, for when an item has taken its place

/** Opens an item, or shows the list again. */
function open(item) {
	const before = view.item;
	view.item = item;
	history.pushState(null, "", address());
	opened(before);
}

/** Shows what is open now, with the keyboard at it; before is what was. */
function opened(before) {
	showOpen();
	if (view.item) $("reading").focus({ preventScroll: true });
	if (wide.matches) return;
	scrollTo({ top: view.item ? 0 : listTop });
	if (!view.item) cards.get(before)?.node.querySelector("[data-item]").focus({ preventScroll: true });
}

addEventListener("popstate", () => {
	const [before, filtered] = [view.item, filter()];
	readAddress();
	if (filter() !== filtered) change({ ...view });
	else opened(before);
});
document.addEventListener("click", (event) => {
	const { target, button, ctrlKey, metaKey, shiftKey, altKey } = event;
	const narrow = target.closest("[data-narrow]")?.dataset.narrow;
	if (narrow) change({ [narrow]: target.textContent, channel: "" });
	else if (narrow === "") change({ q: "", category: "", event: "", mine: "" });
	const link = target.closest("a[data-item]");
	if (!link || button || ctrlKey || metaKey || shiftKey || altKey) return;
	event.preventDefault();
	open(link.dataset.item);
});
$("feed").onkeydown = (event) => {
	const links = [...$("feed").querySelectorAll("[data-item]")];
	const at = links.indexOf(event.target);
	const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: links.length - 1 }[event.key];
	if (at < 0 || to === undefined) return;
	event.preventDefault();
	links[to]?.focus();
};
$("reading").onkeydown = ({ key }) => {
	if (key !== "Escape") return;
	if (!wide.matches) return open("");
	$("feed").querySelector("[aria-current]")?.focus();
};

let typing = 0;
$("q").oninput = () => {
	clearTimeout(typing);
	typing = setTimeout(() => change({ q: $("q").value.trim() }), 250);
};
for (const name of ["category", "event"]) $(name).onchange = () => change({ [name]: $(name).value });
$("mine").onchange = () => change({ mine: $("mine").checked ? "1" : "" });
$("more").onclick = () => {
	limit = Math.min(limit + STEP, MOST);
	start();
};
$("fresh").onclick = () => scrollTo({ top: 0 });
addEventListener("scroll", () => {
	if (!view.item) listTop = scrollY;
	if (scrollY < 300) $("fresh").hidden = true;
}, { passive: true });
wide.onchange = () => {
	for (const card of cards.values()) card.row = null; // drawn anew
	show(last);
};

offerFilters();
showAccount();
start();
offerAsking(pb);
confirmSession();
