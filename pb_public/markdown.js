// Markdown as nodes of the page. Three things keep it harmless, each by itself: markdown-it
// takes HTML for text; DOMPurify lets through only what is named here; and the page's
// policy runs no script or style but its own.
import { imageLabel, leadAway, wide } from "./nodes.js";
import DOMPurify from "./vendor/purify.es.mjs";
import MarkdownIt from "./vendor/markdown-it.esm.min.mjs";

// What is larger stays text, so that no text keeps the page busy for long.
export const LONGEST = 20_000; // characters
const MOST = 10_000; // tokens: some 2,500 cells of tables, or 5,000 lines

const LINKS = /^(https?:\/\/|mailto:)/i;
export const ALLOWED = {
	ALLOWED_TAGS: "a blockquote br button code em h3 h4 h5 h6 hr li ol p pre s strong table tbody td th thead tr ul".split(" "),
	ALLOWED_ATTR: ["class", "data-src", "href", "start", "type"], // no id and no name, which scripts could take for theirs
	ADD_URI_SAFE_ATTR: ["data-src", "start", "type"],
	ALLOWED_URI_REGEXP: LINKS,
	ALLOW_ARIA_ATTR: false,
	ALLOW_DATA_ATTR: false,
	RETURN_DOM_FRAGMENT: true,
};

const markdown = new MarkdownIt({ html: false, breaks: true, linkify: true });
const { escapeHtml } = markdown.utils;
markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
markdown.validateLink = (url) => LINKS.test(url);

markdown.block.State = class extends markdown.block.State {
	push(...token) {
		if (this.tokens.length > MOST) throw new RangeError("too many tokens");
		return super.push(...token);
	}
};

/** An image is a button that loads it: until then its site learns nothing of the reader. */
markdown.renderer.rules.image = (tokens, at, options, env, renderer) => {
	const src = tokens[at].attrGet("src");
	const alt = renderer.renderInlineAsText(tokens[at].children, options, env);
	if (!/^https:/i.test(src) || !URL.canParse(src)) return escapeHtml(alt || src);
	return `<button type="button" class="image" data-src="${escapeHtml(src)}">${escapeHtml(imageLabel(src, alt))}</button>`;
};

// Headings go on from the row's title, an h2, and skip no level; cells are aligned by
// class; the text chooses no class.
markdown.core.ruler.push("page", ({ tokens }) => {
	const above = []; // levels of the headings, as written, down to this one
	for (const token of tokens) {
		if (token.type === "heading_open") {
			const level = Number(token.tag[1]);
			while (above.at(-1) >= level) above.pop();
			above.push(level);
		}
		if (token.type.startsWith("heading_")) token.tag = "h" + Math.min(above.length + 2, 6);
		if (token.type === "fence") token.info = "";
		const align = token.attrGet("style");
		if (align) token.attrs = [["class", align.replace("text-align:", "")]];
	}
});

/**
 * The text as nodes, or null if it is too large for that.
 * @param {string} text
 * @returns {DocumentFragment | null}
 */
export function render(text) {
	if (text.length > LONGEST) return null;
	let html;
	try {
		const tokens = markdown.parse(text, {});
		if (tokens.reduce((sum, { children }) => sum + 1 + (children?.length ?? 0), 0) > MOST) return null;
		html = markdown.renderer.render(tokens, markdown.options, {});
	} catch {
		return null;
	}
	const content = DOMPurify.sanitize(html, ALLOWED);
	for (const button of [...content.querySelectorAll("a button")].reverse()) button.closest("a").after(button);
	for (const link of content.querySelectorAll("a")) {
		leadAway(link);
		if (!link.textContent.trim()) link.textContent = link.href;
	}
	content.querySelectorAll("table").forEach(wide);
	return content;
}
