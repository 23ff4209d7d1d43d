// The lists of the page "ModelRiver".

/** The latest records. */
export function contentList(data) {
	if (!data.content.length) {
		return t.div(
			{ className: "list" },
			t.div({ className: "list-item txt-hint" }, data.status !== "live" ? "Loading …" : data.stats?.rejected.count ? "Nothing is stored yet: webhooks are rejected, see above." : t.div(
				null,
				"Nothing has arrived yet. Point a ModelRiver webhook here, or send a sample: ",
				t.code(null, "./pocketriver modelriver send"),
			)),
		);
	}
	return t.div({ className: "list" }, ...data.content.map((row) => item(
		row.id, () => app.modals.openRecordPreview(row),
		t.strong({ className: "txt-ellipsis" }, row.title),
		[t.span({ className: "label sm" }, row.category), row.eventName && t.span({ className: "label sm" }, row.eventName)],
		row.created,
	)));
}

/** The latest callbacks in the state that is looked at. */
export function callbackList(data, retry) {
	const rows = data.callbacks;
	if (!rows?.length) {
		const text = !rows ? "Loading …" : data.state === "failed" ? "No callback has failed." : data.state ? "No callback waits." : "No callbacks yet.";
		return t.div({ className: "list" }, t.div({ className: "list-item txt-hint" }, text));
	}
	const kinds = { delivered: "success", failed: "danger", pending: "warning" };
	return t.div({ className: "list" }, ...rows.map((row) => item(
		row.id, () => app.modals.openRecordPreview(row),
		t.strong({ className: "txt-ellipsis" }, row.expand?.record?.title ?? (row.payload ? "Refused: see the payload" : "Its record was deleted")),
		[
			t.span({ className: "label sm " + kinds[row.state] }, row.state === "pending" ? "waiting" : row.state),
			t.span({ className: "txt-hint txt-sm" }, `${row.attempts} ${row.attempts === 1 ? "attempt" : "attempts"}${row.lastStatus ? `, last answer ${row.lastStatus}` : ""}`),
			row.lastError && t.div({ className: "txt-sm modelriver-danger modelriver-error" }, row.lastError),
		],
		row.created,
		row.record && t.button({
			type: "button", className: "btn sm circle transparent secondary", ariaLabel: app.attrs.tooltip("Open the record"),
			onclick: () => app.modals.openRecordPreview({ id: row.record, collectionName: "aiContent" }),
		}, t.i({ className: "ri-file-text-line", ariaHidden: true })),
		row.state === "failed" && t.button({
			type: "button", className: () => `btn sm circle transparent secondary modelriver-retry ${data.busy[row.id] ? "loading" : ""}`,
			disabled: () => !!data.busy[row.id], ariaLabel: app.attrs.tooltip("Retry"),
			onclick: () => retry(row.id),
		}, t.i({ className: "ri-restart-line", ariaHidden: true })),
	)));
}

/** A line of a list. open is what a click on its title does, or where that leads. */
export function item(id, open, title, details, created, ...actions) {
	return t.div(
		{ className: "list-item", rid: id },
		t.div(
			{ className: "content modelriver-item" },
			typeof open === "string"
				? t.a({ className: "modelriver-open", href: open }, title)
				: t.button({ type: "button", className: "modelriver-open", onclick: open }, title),
			...details.filter(Boolean),
		),
		app.components.formattedDate({ value: created, short: true }),
		t.div({ className: "actions" }, ...actions.filter(Boolean)),
	);
}
