// Data that has no text, for reading: lists of names and values, and tables. The whole of
// it, to the last digit, is in the row's "Data".
import { imageButton, leadAway, make, wide } from "./nodes.js";

const MOST = 200; // values
const DEEPEST = 4;
const COLUMNS = 6;

const isObject = (value) => value !== null && typeof value === "object";
const isEmpty = (value) => value === null || value === "" || (isObject(value) && !Object.keys(value).length);

/** Whether text is an image's address: it ends like one, or its name says so. */
export function isImage(name, text) {
	return typeof text === "string" && text.length < 2000 && /^https:\/\/\S+$/i.test(text) && URL.canParse(text) &&
		(/\.(avif|gif|jpe?g|png|svg|webp)([?#]|$)/i.test(text) || /image|photo|picture|thumbnail|avatar|logo/i.test(name));
}

/**
 * The first plain values of data, for a line.
 * @param {unknown} data
 */
export function outline(data) {
	return Object.entries(data ?? {}).filter(([name, value]) => name !== "title" && !isObject(value) && !isEmpty(value))
		.slice(0, COLUMNS).map(([name, value]) => `${name.replaceAll("_", " ")}: ${String(value).slice(0, 80)}`).join(" · ");
}

/**
 * The data of a row as nodes, or null if there is none.
 * @param {{ title: string, data: unknown }} row
 * @returns {DocumentFragment | null}
 */
export function structure({ title, data }) {
	if (!isObject(data)) return null;
	const shown = Array.isArray(data) ? data : Object.fromEntries(Object.entries(data).filter(([name, value]) => name !== "title" || String(value) !== title));
	if (isEmpty(shown)) return null;
	const content = document.createDocumentFragment();
	content.append(branch("", shown, { left: MOST, depth: 0 }));
	return content;
}

/** A value's node; state has how many values may still be shown, and how deep this one is. */
function branch(name, value, state) {
	if (isEmpty(value)) return "–";
	if (!isObject(value)) return leaf(name, value);
	if (state.depth === DEEPEST) return `${Object.keys(value).length} more in Data`;
	state.depth++;
	const node = isTable(value) ? table(value, state) : Array.isArray(value) ? list(name, value, state) : pairs(value, state);
	state.depth--;
	return node;
}

function leaf(name, value) {
	if (isImage(name, value)) return imageButton(value, name.replaceAll("_", " "));
	if (/^https?:\/\/\S+$/i.test(value) && URL.canParse(value)) return leadAway(make("a", { href: value }, value));
	// What JavaScript had to round is not what was sent.
	return (Number.isInteger(value) && !Number.isSafeInteger(value) ? "≈ " : "") + value;
}

/** Makes the nodes of as many members as may be shown, and tells of the rest. */
function each(entries, state, node, rest) {
	const nodes = [];
	for (const [at, entry] of entries.entries()) {
		if (state.left-- <= 0) {
			nodes.push(rest(`${entries.length - at} more in Data`));
			break;
		}
		nodes.push(node(entry), "\n"); // by which folding counts lines
	}
	return nodes;
}

function pairs(value, state) {
	const pair = (name, ...nodes) => make("div", {}, make("dt", {}, name), make("dd", {}, ...nodes));
	return make("dl", {}, ...each(Object.entries(value), state,
		([name, member]) => pair(name.replaceAll("_", " "), branch(name, member, state)), (text) => pair("…", text)));
}

function list(name, value, state) {
	const item = (node) => make("li", {}, node);
	return make("ul", {}, ...each(value, state, (member) => item(branch(name, member, state)), item));
}

const columns = (rows) => [...new Set(rows.flatMap(Object.keys))];

function isTable(value) {
	return Array.isArray(value) && value.length > 1 && value.length <= MOST &&
		value.every((row) => isObject(row) && !Array.isArray(row) && !Object.values(row).some(isObject)) &&
		columns(value).length <= COLUMNS;
}

function table(rows, state) {
	const names = columns(rows);
	const row = (tag, cells, props = {}) => make("tr", {}, ...cells.map((cell) => make(tag, props, cell)));
	return wide(make("table", {}, make("thead", {}, row("th", names.map((name) => name.replaceAll("_", " ")), { scope: "col" })),
		make("tbody", {}, ...each(rows, state, (member) => row("td", names.map((name) => branch(name, Object.hasOwn(member, name) ? member[name] : null, state))),
			(text) => row("td", [text], { colSpan: names.length })))));
}
