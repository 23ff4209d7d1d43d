// What the page's parts are made of. Text goes to the page only as textContent.

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

/** Puts a new node in the old one's place; what has the focus keeps it. */
export function replace(old, node) {
	const focused = old.contains(document.activeElement) ? document.activeElement : null;
	old.replaceWith(node);
	if (focused) [...node.querySelectorAll(focused.tagName)].find((other) => other.textContent === focused.textContent)?.focus({ preventScroll: true });
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

/** A link that leads away from the page, and tells the other site nothing of it. */
export function leadAway(link) {
	return Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
}

/** Lets a table that is too wide scroll by itself, with the keyboard too. */
export function wide(table) {
	const frame = make("div", { className: "wide", tabIndex: 0, role: "group", ariaLabel: "Table" });
	table.replaceWith(frame);
	frame.append(table);
	return frame;
}

/** What a button says that loads the image at src, which its site will know of. */
export const imageLabel = (src, alt) => `Show image ${alt ? `“${alt}” ` : ""}from ${new URL(src).host}`;

export function imageButton(src, alt) {
	return make("button", { type: "button", className: "image", "data-src": src }, imageLabel(src, alt));
}

/** Puts the image in place of its button. */
export function showImage(button) {
	const { src } = button.dataset;
	if (!/^https:/i.test(src)) return;
	const image = make("img", { alt: button.textContent.replace(/^Show /, ""), referrerPolicy: "no-referrer", tabIndex: -1, src });
	image.onerror = () => {
		button.textContent = "Not loaded: " + image.alt;
		image.replaceWith(button);
	};
	const focused = document.activeElement === button;
	button.replaceWith(image);
	if (focused) image.focus({ preventScroll: true });
}
