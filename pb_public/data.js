// A row's data as a tree, to the last digit. Text goes to the page only as textContent.
import { copier, imageButton, make, showImage } from "./nodes.js";
import { isImage } from "./structure.js";

const FEW = 100; // members that show at first

/** A number as it was sent, where JavaScript has no such number. */
class Exact {
	constructor(source) {
		this.source = source;
	}
	toJSON() {
		return JSON.rawJSON?.(this.source) ?? Number(this.source);
	}
}

/** A row's data and metadata to the last digit, or as the row has them if that cannot be had. */
export async function exactData(pb, { id, data, metadata }) {
	const parse = (text) => JSON.parse(text, (_, value, context) =>
		typeof value === "number" && context?.source && context.source !== String(value) ? new Exact(context.source) : value);
	try {
		return await pb.send(`/api/collections/aiContent/records/${id}`, {
			requestKey: null, // and no fields: PocketBase rounds numbers to pick them
			fetch: async (...request) => {
				const response = await fetch(...request);
				response.json = async () => parse(await response.text());
				return response;
			},
		});
	} catch {
		return { data, metadata };
	}
}

/** Shows the data of a row in details, to the last digit. */
export async function openData(pb, row, details) {
	const { data, metadata } = await exactData(pb, row);
	if (details.children.length > 1) return;
	details.append(copier("Copy JSON", () => JSON.stringify(data, null, 2)), members({ data, metadata }));
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
		const image = isImage(key, value) ? imageButton(value, "") : "";
		if (image) image.onclick = () => showImage(image);
		return make("div", {}, name, make("span", { className: typeof value }, text), image);
	}
	const count = Object.keys(value).length;
	const details = make("details", {}, make("summary", {}, name, Array.isArray(value) ? `[${count}]` : `{${count}}`));
	const open = () => details.open && details.children.length === 1 && details.append(members(value));
	details.ontoggle = open;
	details.open = count < 8;
	return details;
}
