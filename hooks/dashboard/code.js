// Texts that were sent, as they are or made readable, to copy and to save.
import { pretty } from "./pretty.js";

const MOST = 50_000; // characters that are shown

/** A text with its heading, the choice of how it is shown, and what is known of it. */
export function code(heading, text, filename, about) {
	const view = store({ raw: false });
	const choice = (label, raw) => t.button({
		type: "button", className: () => "btn sm " + (view.raw === raw ? "" : "transparent"),
		ariaPressed: () => String(view.raw === raw), onclick: () => view.raw = raw,
	}, label);
	const shown = () => view.raw ? text.slice(0, MOST) : pretty(text, MOST);
	return t.div(
		{ className: "modelriver-code" },
		t.header(
			{ className: "modelriver-head" },
			t.h3(null, heading),
			t.div({ className: "modelriver-states m-l-auto", role: "group", ariaLabel: heading + ", how to show it" }, choice("Pretty", false), choice("Raw", true)),
			copyButton("Copy " + heading.toLowerCase(), () => text),
			t.button(
				{ type: "button", className: "btn sm circle transparent secondary", ariaLabel: app.attrs.tooltip("Download " + heading.toLowerCase()), onclick: () => download(text, filename) },
				t.i({ className: "ri-download-line", ariaHidden: true }),
			),
		),
		about(),
		text.length > MOST ? t.p(
			{ className: "txt-hint" },
			`Of ${text.length.toLocaleString()} characters the first ${MOST.toLocaleString()} are shown here. Copy or download it to see all.`,
		) : undefined,
		t.pre({ className: "modelriver-text", tabIndex: 0, ariaLabel: heading, role: "group" }, t.code(null, shown)),
	);
}

/** The headers that are kept of a webhook. */
export function headers(names) {
	return t.details(
		null,
		t.summary(null, "Headers"),
		t.dl(
			{ className: "modelriver-about modelriver-headers" },
			...Object.entries(names).map(([name, value]) => t.div(null, t.dt({ className: "txt-hint" }, name), t.dd(null, t.code(null, [value].flat().join(", "))))),
		),
	);
}

/** What was answered to an attempt. */
export function answer(text) {
	return t.pre({ className: "modelriver-text", tabIndex: 0, ariaLabel: "The answer", role: "group" }, t.code(null, text));
}

/** A button that copies. PocketBase's own cannot be reached with the keyboard. */
export function copyButton(label, text) {
	const copy = async () => {
		if (!navigator.clipboard) return app.toasts.error("The browser copies only on pages of https or of this machine.");
		await app.utils.copyToClipboard(text());
		app.toasts.success("Copied.");
	};
	return t.button(
		{ type: "button", className: "btn sm circle transparent secondary modelriver-copy", ariaLabel: app.attrs.tooltip(label), onclick: copy },
		t.i({ className: "ri-file-copy-line", ariaHidden: true }),
	);
}

function download(text, filename) {
	const url = URL.createObjectURL(new Blob([text], { type: "application/json" }));
	app.utils.download(url, filename);
	setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
