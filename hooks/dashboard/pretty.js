// JSON made readable by its text alone: parsing would round numbers that are beyond a
// double, drop members that come twice, and take long where only a part is shown.

/** The JSON text with line breaks, no more than most characters of it. */
export function pretty(json, most) {
	const tokens = /"[^"\\]*(?:\\.[^"\\]*)*"?|[{}[\],:]|[^\s"{}[\],:]+/gs;
	let out = "";
	let depth = 0;
	let before = "";
	for (const [token] of json.slice(0, most).matchAll(tokens)) {
		const closes = token === "}" || token === "]";
		if (closes) depth = Math.max(0, depth - 1);
		const isEmpty = closes && (before === "{" || before === "[");
		if (!isEmpty && (closes || "{[,".includes(before) && before)) out += "\n" + "  ".repeat(depth);
		out += token === ":" ? ": " : token;
		if (token === "{" || token === "[") depth++;
		before = token;
		if (out.length > most) return out.slice(0, most);
	}
	return out;
}
