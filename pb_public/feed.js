// The feed page: aiContent as it arrives, through liveQuery. Text goes to the page as
// textContent, or through markdown.js.
import PocketBase from "./vendor/pocketbase.es.mjs";
import { offerAsking } from "./ask-box.js";
import { openData } from "./data.js";
import { liveQuery } from "./live-query.js";
import { copier, make } from "./nodes.js";
import { reading } from "./reading.js";

const STEP = 20; // rows at first, and with each "load more"
const MOST = 999; // PocketBase lists 1000 at most, and one tells that there are more

const pb = new PocketBase(new URL(".", location.href).href);
const $ = (id) => document.getElementById(id);
const params = new URLSearchParams(location.search);
const view = { q: "", category: "", event: "", channel: "", mine: "" };
for (const name in view) view[name] = params.get(name) ?? "";

let limit = STEP;
let stop = () => {};
let last = { items: [], status: "connecting", error: null };
let lostAt = null;
const cards = new Map(); // id -> { row, node, choice }
const seen = { category: new Set(), event: new Set() };

function filter() {
	const all = [];
	const equal = (field, value) => value && all.push(`${field} = ${JSON.stringify(value)}`);
	equal("channelId", view.channel);
	equal("category", view.category);
	equal("eventName", view.event);
	if (view.mine && pb.authStore.record) equal("userId", pb.authStore.record.id);
	if (view.q) {
		const text = JSON.stringify(view.q.replaceAll("%", "\\%"));
		all.push(`(title ~ ${text} || body ~ ${text})`);
	}
	return all.join(" && ");
}

/** Shows the list that view asks for, from now on. */
function start() {
	const query = new URLSearchParams(Object.entries(view).filter(([, value]) => value));
	history.replaceState(null, "", query.size ? "?" + query : location.pathname);
	for (const name of ["q", "category", "event"]) if ($(name).value.trim() !== view[name]) $(name).value = view[name]; // not what is being typed
	$("mine").checked = !!view.mine;
	$("controls").hidden = !!view.channel;
	$("channel").hidden = !view.channel;
	$("channel").querySelector("code").textContent = view.channel;

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
}

function show({ items, status, error }, announce) {
	const rows = items.slice(0, limit);
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
			const choice = card?.choice ?? { open: !!view.channel, plain: false, images: new Set() };
			const node = draw(row, choice, card?.node);
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
	$("feed").ariaBusy = "false";
	$("more").hidden = items.length <= limit || limit >= MOST;
	if (fresh.length) tell(fresh);
	showState(status, error);
	showEmpty(!rows.length && (status === "live" || (announce && status === "connecting")));
}

/** Puts a row's new node in the old one's place; what has the focus keeps it. */
function replace(old, node) {
	const focused = old.contains(document.activeElement) ? document.activeElement : null;
	old.replaceWith(node);
	if (focused) [...node.querySelectorAll(focused.tagName)].find((other) => other.textContent === focused.textContent)?.focus({ preventScroll: true });
}

/** Draws a row; what the reader chose or opened in the node it replaces stays so. */
function draw(row, choice, old) {
	const { title, body, category, eventName, userId, metadata } = row;
	const model = [metadata?.ai_provider, metadata?.ai_model].filter((name) => typeof name === "string").join(" / ");
	const { text, buttons } = reading(pb, row, choice);

	const about = make("p", { className: "about" }, narrow("category", category));
	if (userId) about.append(make("span", { className: "own" }, userId === pb.authStore.record?.id ? "Only for you" : "For one user"));
	if (eventName) about.append(narrow("event", eventName));
	if (model) about.append(make("span", {}, model));
	about.append(when(row.created));

	const data = make("details", { className: "data" }, make("summary", {}, "Data"));
	data.ontoggle = () => data.open && data.children.length === 1 && openData(pb, row, data);
	data.open = !!old?.querySelector(".data")?.open;

	const tools = make("div", { className: "tools" }, ...buttons);
	if (body) tools.append(copier("Copy text", () => body));
	tools.append(data);
	return make("li", {}, make("article", {}, make("h2", {}, title), about, text, tools));
}

/** A value that the feed can be narrowed to. */
function narrow(name, value) {
	return make("button", {
		type: "button", className: name, title: `Only this ${name}`,
		onclick: () => change({ [name]: value, channel: "" }),
	}, value);
}

function when(created) {
	const date = new Date(created.replace(" ", "T"));
	const exact = date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });
	const time = make("time", { dateTime: date.toISOString(), title: date.toString() }, make("span"), ` · ${exact}`);
	age(time);
	return time;
}

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
function age(time) {
	const seconds = (Date.parse(time.dateTime) - Date.now()) / 1000;
	const [unit, size] = [["day", 86400], ["hour", 3600], ["minute", 60]].find(([, size]) => -seconds >= size) ?? [];
	time.firstChild.textContent = unit ? relative.format(Math.ceil(seconds / size), unit) : "just now";
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

let stateTimer = 0;
function showState(status, error) {
	clearTimeout(stateTimer);
	// PocketBase ends a stream every now and then: that is not worth a word.
	if (status === "connecting" && $("state").dataset.status === "live") {
		stateTimer = setTimeout(() => setState(status), 1000);
	} else {
		setState(status);
	}
	lostAt = status === "offline" ? (lostAt ?? new Date()) : null;
	const notice = status === "failed" ? `The server refuses this list: ${error.message}`
		: lostAt && `No connection since ${lostAt.toLocaleTimeString()}. ${cards.size ? "You see what was there then." : ""} Trying again …`;
	$("notice").hidden = !notice;
	if (notice !== $("notice").textContent) $("notice").textContent = notice || "";
}

function setState(status) {
	const text = { live: "Live", connecting: "Connecting…", offline: "Offline", failed: "Refused" }[status];
	if ($("state").textContent !== text) $("state").textContent = text;
	$("state").dataset.status = status;
}

function showEmpty(empty) {
	const section = $("empty");
	const kind = !empty ? "" : view.channel ? "channel" : filter() ? "filter" : "none";
	if (section.dataset.kind === kind) return;
	section.dataset.kind = kind;
	section.hidden = !empty;
	const address = new URL("webhooks/modelriver", pb.baseURL).href;
	const command = "./pocketriver modelriver send" + (location.host === "127.0.0.1:8090" ? "" : ` --url ${address}`);
	const text = (...parts) => make("p", {}, ...parts);
	section.replaceChildren(...{
		"": () => [],
		none: () => [
			make("h2", {}, "Nothing has arrived yet"),
			text("Try it out: send a sample, as ModelRiver would, with the server's MODELRIVER_WEBHOOK_SECRET in the environment."),
			make("pre", {}, make("code", {}, command)),
			copier("Copy the command", () => command),
			text("It appears here at once. For real content, give ModelRiver this webhook address: ", make("code", {}, address)),
			text("What arrived, and what failed, is in the ", make("a", { href: "./_/#/modelriver" }, "dashboard"), "."),
		],
		filter: () => [
			make("h2", {}, "Nothing matches"),
			make("button", { type: "button", onclick: () => change({ q: "", category: "", event: "", mine: "" }) }, "Show everything"),
		],
		channel: () => [
			make("h2", { className: "waiting" }, "Waiting for the result"),
			text("It appears here the moment it lands. Leave this page open."),
		],
	}[kind]());
}

/** Offers a row's category and event for filtering. */
function remember({ category, eventName, event = eventName }) {
	for (const [name, value] of [["category", category], ["event", event]]) {
		if (!value || seen[name].has(value) || seen[name].size >= 200) continue;
		seen[name].add(value);
		const next = [...$(name).options].slice(1).find((option) => option.value > value);
		$(name).add(make("option", { value }, value), next ?? null);
	}
}

/** Offers what the viewer's latest rows have, and what is chosen. */
function offer() {
	for (const name in seen) {
		seen[name].clear();
		$(name).length = 1;
	}
	remember(view);
	const asked = viewer;
	pb.collection("aiContent").getList(1, 200, { fields: "category,eventName", sort: "-created,-id", skipTotal: true, requestKey: null })
		.then(({ items }) => asked === viewer && items.forEach(remember), () => {});
}

function change(changed) {
	Object.assign(view, changed);
	limit = STEP;
	start();
}

function showAccount() {
	const { isValid, record } = pb.authStore;
	$("who").textContent = (isValid && (record?.name || record?.email || record?.username)) || "";
	$("sign").textContent = isValid ? "Sign out" : "Sign in";
	$("mine-label").hidden = !isValid;
}

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
	if (scrollY < 300) $("fresh").hidden = true;
}, { passive: true });
$("sign").onclick = () => (pb.authStore.isValid ? pb.authStore.clear() : $("dialog").showModal());

const form = $("dialog").querySelector("form");
form.querySelector("[value=cancel]").onclick = () => $("dialog").close();
form.onsubmit = async (event) => {
	event.preventDefault();
	try {
		await pb.collection("users").authWithPassword(form.identity.value, form.password.value);
		$("dialog").close();
	} catch (err) {
		$("refusal").textContent = err.status === 400 ? "That is not the right name and password." : err.message;
	}
};
$("dialog").onclose = () => {
	form.reset();
	$("refusal").textContent = "";
};

const currentViewer = () => (pb.authStore.isValid ? pb.authStore.record?.id : undefined);
let viewer = currentViewer();

/** Begins anew if somebody else is signed in, or nobody any more: a session may end by itself. */
function checkViewer() {
	if (currentViewer() === viewer) return false;
	showAccount();
	// Nothing of the one before stays, in no corner.
	viewer = currentViewer();
	last = { ...last, items: [] };
	show(last);
	$("news").textContent = "";
	change(viewer ? { mine: "" } : { q: "", category: "", event: "", mine: "" });
	offer();
	offerAsking(pb);
	return true;
}
pb.authStore.onChange(() => checkViewer() || showAccount());
setInterval(() => {
	document.querySelectorAll("time").forEach(age);
	checkViewer();
}, 20_000);

offer();
showAccount();
start();
offerAsking(pb);
if (pb.authStore.isValid) {
	pb.collection("users").authRefresh().catch(({ status }) => [401, 403, 404].includes(status) && pb.authStore.clear());
}
