// A text to take elsewhere, on the page "ModelRiver".

/** The text as code, and PocketBase's button to copy it, for the keyboard too and with a name of its own. */
export function copied(text, label) {
	const button = app.components.copyButton(text);
	button.tabIndex = 0;
	button.title = label;
	button.ariaLabel = label;
	return t.span({ className: "modelriver-copied" }, t.code(null, text), button);
}
