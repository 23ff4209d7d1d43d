// What a row says, for reading: its Markdown, or its data if it has no text; folded if that
// is long; or as it was written.
import { exactData } from "./data.js";
import { LONGEST, render } from "./markdown.js";
import { make, showImage } from "./nodes.js";
import { structure } from "./structure.js";

const FOLD = 600; // characters that show at first
const LINES = 8; // lines of them
const FIRST = 4_000; // characters of Markdown that are rendered for it, so that many rows cost little

let drawn = 0; // of one row there may be several

/**
 * A row's text, and the buttons to read it otherwise.
 * @param {import("pocketbase").default} pb
 * @param {{ id: string, title: string, body: string, data: unknown }} row
 * @param {{ open: boolean, plain: boolean, images: Set<string> }} choice what the reader chose, which outlives the row's updates
 */
export function reading(pb, row, choice) {
	const text = make("div", { className: "body", id: `body-${++drawn}` });
	const fold = make("button", { type: "button", "aria-controls": text.id });
	const plain = make("button", { type: "button", "aria-controls": text.id }, row.body ? "Plain text" : "JSON");
	const first = beginning(row.body);
	const formatted = row.body ? render(first) : structure(row);
	let written = row.body;
	const format = () => (choice.open && first !== row.body ? render(row.body) : formatted?.cloneNode(true));
	const draw = () => {
		const nodes = choice.plain ? null : format();
		const whole = nodes ?? nodesOf(written || json(row.data));
		const start = whole.cloneNode(true);
		const long = cut(start) || first !== row.body;
		text.classList.toggle("written", !nodes);
		text.replaceChildren(choice.open || !long ? whole : start);
		for (const button of text.querySelectorAll(".image")) if (choice.images.has(button.dataset.src)) showImage(button);
		fold.hidden = !long;
		fold.ariaExpanded = String(choice.open);
		fold.textContent = choice.open ? "Show less" : "Show all";
		plain.ariaPressed = String(choice.plain);
	};
	const drawExact = () => exactData(pb, row).then(({ data }) => {
		written = json(data);
		draw();
	});
	const show = () => {
		draw();
		if (choice.plain && !row.body) drawExact();
	};
	fold.onclick = () => {
		choice.open = !choice.open;
		draw();
		if (!choice.open) text.parentNode.scrollIntoView({ block: "nearest" });
	};
	plain.onclick = () => {
		choice.plain = !choice.plain;
		show();
	};
	text.onclick = ({ target }) => {
		if (!target.matches(".image")) return;
		choice.images.add(target.dataset.src);
		showImage(target);
	};
	show();
	const buttons = [fold];
	if (formatted && !readsAlike(formatted, first)) buttons.push(plain);
	else if (row.body.length > LONGEST) buttons.push(make("span", {}, "Too long to format"));
	return { text, buttons };
}

/** What of a text is rendered while it is folded: whole lines, if there are any. */
function beginning(body) {
	if (body.length <= FIRST || body.length > LONGEST) return body;
	const end = body.lastIndexOf("\n", FIRST);
	return body.slice(0, end > FOLD ? end : FIRST);
}

const json = (data) => (data === null || typeof data !== "object" ? "" : JSON.stringify(data, null, 2));

/** Whether a text reads as it is written. */
function readsAlike(formatted, body) {
	const words = (text) => text.replace(/\s+/g, " ").trim();
	return words(formatted.textContent) === words(body);
}

function nodesOf(text) {
	const nodes = document.createDocumentFragment();
	nodes.append(text);
	return nodes;
}

/**
 * Cuts off what is too long to show at first, so that nothing of it has the focus unseen,
 * and returns whether there was something.
 */
function cut(nodes) {
	const texts = document.createTreeWalker(nodes, NodeFilter.SHOW_TEXT);
	for (let characters = FOLD, lines = LINES; texts.nextNode();) {
		const text = texts.currentNode;
		if (!text.previousSibling && !text.data.trim() || text.parentNode.nodeName === "TR") continue; // between tags
		const kept = text.data.split("\n", lines).join("\n").slice(0, characters);
		lines -= kept.split("\n").length - 1;
		characters -= kept.length;
		if (kept === text.data && lines > 0 && characters > 0) continue;
		const rest = document.createRange();
		rest.setStart(text, kept.length);
		rest.setEndAfter(nodes.lastChild);
		if (!rest.toString().trim()) return false;
		rest.deleteContents();
		if (kept.trim()) text.data = kept.replace(/\s+\S*$/, "") + " …";
		return true;
	}
	return false;
}
