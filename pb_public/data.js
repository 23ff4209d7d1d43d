// A row's data as a tree, to the last digit. Text goes to the page only as textContent.

const FEW = 100; // members that show at first

/** Creates an element; on… are listeners, other keys properties or attributes. */
export function make(tag, props = {}, ...children) {
	const node = document.createElement(tag);
	for (const [key, value] of Object.entries(props)) {
		if (key in node) node[key] = value;
		else node.setAttribute(key, value);
	}
	node.append(...children);
	return node;
}

/** A number as it was sent, where JavaScript has no such number. */
class Exact {
	constructor(source) {
		this.source = source;
	}
	toJSON() {
		return JSON.rawJSON?.(this.source) ?? Number(this.source);
	}
}

/** Shows the data of a row in details, to the last digit. */
export async function openData(pb, { id, data, metadata }, details) {
	const parse = (text) => JSON.parse(text, (_, value, context) =>
		typeof value === "number" && context?.source && context.source !== String(value) ? new Exact(context.source) : value);
	let value = { data, metadata };
	try {
		value = await pb.send(`/api/collections/aiContent/records/${id}`, {
			requestKey: null, // and no fields: PocketBase rounds numbers to pick them
			fetch: async (...request) => {
				const response = await fetch(...request);
				response.json = async () => parse(await response.text());
				return response;
			},
		});
	} catch {} // then without the last digits
	if (details.children.length > 1) return;
	details.append(copier("Copy JSON", () => JSON.stringify(value.data, null, 2)), members({ data: value.data, metadata: value.metadata }));
}

function members(value) {
	const entries = Object.entries(value);
	const list = make("ul");
	const add = (from) => {
		for (const [key, member] of entries.slice(from, from + FEW)) list.append(make("li", {}, branch(key, member)));
		const rest = entries.length - from - FEW;
		if (rest > 0) list.append(make("li", {}, make("button", {
			type: "button", onclick: (event) => (event.target.parentNode.remove(), add(from + FEW)),
		}, `${rest} more`)));
	};
	add(0);
	return list;
}

function branch(key, value) {
	const name = make("span", { className: "key" }, key);
	if (value === null || typeof value !== "object" || value instanceof Exact) {
		const text = value instanceof Exact ? value.source : typeof value === "string" ? value : JSON.stringify(value);
		return make("div", {}, name, make("span", { className: typeof value }, text));
	}
	const count = Object.keys(value).length;
	const details = make("details", {}, make("summary", {}, name, Array.isArray(value) ? `[${count}]` : `{${count}}`));
	const open = () => details.open && details.children.length === 1 && details.append(members(value));
	details.ontoggle = open;
	details.open = count < 8;
	return details;
}

/** A button that copies what text returns. */
export function copier(label, text) {
	const button = make("button", { type: "button" }, label);
	button.onclick = async () => {
		let copied = true;
		try {
			await navigator.clipboard.writeText(text());
		} catch { // no clipboard but over https
			const area = make("textarea", { value: text() });
			button.after(area);
			area.select();
			copied = document.execCommand("copy");
			area.remove();
		}
		button.textContent = copied ? "Copied" : "Not copied";
		setTimeout(() => (button.textContent = label), 2000);
	};
	return button;
}
