// An item: the whole of it, or the line of it in a list beside which it is read. Text goes to
// the page as textContent, or through markdown.js.
import { openData } from "./data.js";
import { render } from "./markdown.js";
import { copier, make } from "./nodes.js";
import { reading } from "./reading.js";
import { outline } from "./structure.js";
import { pb } from "./view.js";

const EXCERPT = 300; // characters of a text, of which a line shows the beginning

/** What the reader chose for an item, which outlives its updates. */
export const newChoice = (open) => ({ open, plain: false, images: new Set() });

/** Draws the whole item; what the reader chose or opened in the node it replaces stays so. */
export function drawItem(row, choice, old) {
	const { id, title, body, channelId, userId, metadata } = row;
	const model = [metadata?.ai_provider, metadata?.ai_model].filter((name) => typeof name === "string").join(" / ");
	const { text, buttons } = reading(pb, row, choice);

	const about = make("p", { className: "about" }, narrow("category", row.category));
	if (userId) about.append(ownerOf(userId));
	if (row.eventName) about.append(narrow("event", row.eventName));
	if (model) about.append(make("span", {}, model));
	about.append(when(row.created));

	const data = make("details", { className: "data" }, make("summary", {}, "Data"));
	data.ontoggle = () => data.open && data.children.length === 1 && openData(pb, row, data);
	data.open = !!old?.querySelector(".data")?.open;

	const tools = make("div", { className: "tools" }, ...buttons);
	if (body) tools.append(copier("Copy text", () => body));
	tools.append(copier("Copy link", () => new URL(itemAddress(id), location.href).href));
	if (channelId) tools.append(make("a", { href: "?" + new URLSearchParams({ channel: channelId }), title: `Channel ${channelId}` }, "Channel"));
	tools.append(data);
	return make("article", {}, make("h2", {}, link(id, title)), about, text, tools);
}

/** Draws an item's line, whose link opens it. */
export function drawLine({ id, title, body, category, eventName, userId, created, ...row }) {
	const about = make("p", { className: "about" }, make("span", { className: "category" }, category));
	if (userId) about.append(ownerOf(userId));
	if (eventName) about.append(make("span", { className: "event" }, eventName));
	about.append(when(created));
	return make("article", {}, make("h2", {}, link(id, title)), make("p", { className: "excerpt" }, body ? excerpt(body) : outline(row.data)), about);
}

/** Whose an item is that is not everybody's. */
const ownerOf = (userId) => make("span", { className: "own" }, userId === pb.authStore.record?.id ? "Only for you" : "For one user");

const itemAddress = (item) => "?" + new URLSearchParams({ item });
const link = (id, title) => make("a", { href: itemAddress(id), "data-item": id }, title);

/** A value that the feed can be narrowed to. */
function narrow(name, value) {
	return make("button", { type: "button", className: name, title: `Only this ${name}`, "data-narrow": name }, value);
}

/** The beginning of a text, without its Markdown. */
function excerpt(body) {
	const start = body.slice(0, EXCERPT);
	const nodes = render(start);
	nodes?.querySelectorAll(".image").forEach((button) => button.remove());
	return (nodes?.textContent ?? start).replace(/\s+/g, " ").trim();
}

function when(created) {
	const date = new Date(created.replace(" ", "T"));
	const time = make("time", { dateTime: date.toISOString(), title: date.toLocaleString(undefined, { dateStyle: "full", timeStyle: "long" }) });
	age(time);
	return time;
}

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto" });
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const RECENT = 30 * 86400;

/** Says how long ago a time is, or the day where nobody counts any more. */
export function age(time) {
	const date = new Date(time.dateTime);
	const seconds = (date - Date.now()) / 1000;
	const [unit, size] = UNITS.find(([, size]) => -seconds >= size) ?? [];
	time.textContent = !unit ? "just now" : -seconds < RECENT ? relative.format(Math.ceil(seconds / size), unit)
		: date.toLocaleDateString(undefined, { dateStyle: "medium" });
}
