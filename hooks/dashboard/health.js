// What the page "ModelRiver" says of the server's set-up.

/** What is still to be done before webhooks arrive. */
export function health({ data }) {
	return () => setUp(data.stats);
}

function setUp(stats) {
	if (!stats || (stats.secretSet && stats.keySet && !stats.problem)) return;
	const step = (done, ...content) => t.li(
		{ className: done ? "txt-hint" : "" },
		t.i({ className: done ? "ri-checkbox-circle-line txt-success" : "ri-checkbox-blank-circle-line", ariaHidden: true }),
		t.span(null, ...content, done ? " (done)" : ""),
	);
	return t.section(
		{ className: "alert warning modelriver-setup m-b-base", ariaLabel: "Set-up" },
		t.h2(null, stats.problem ? "Webhooks cannot be stored" : "Finish the set-up"),
		stats.problem && t.p(null, stats.problem + "."),
		t.ol(
			null,
			step(false, "In ModelRiver's console, create a webhook to ", t.code(null, webhookURL(stats)), app.components.copyButton(webhookURL(stats)),
				location.protocol === "https:" ? "" : " (ModelRiver must be able to reach this address.)"),
			step(stats.secretSet, "Start the server with the webhook's signing secret in ", t.code(null, "MODELRIVER_WEBHOOK_SECRET"),
				". Until then every webhook is answered 503, and ModelRiver tries again."),
			step(stats.keySet, "Start the server with a project key in ", t.code(null, "MODELRIVER_API_KEY"),
				". Until then callbacks wait, and fail after their window, by default 5 minutes."),
		),
	);
}

function webhookURL(stats) {
	return location.origin + stats.path;
}
