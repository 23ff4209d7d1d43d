// What the page "ModelRiver" says of rejected webhooks.

/** That webhooks were rejected, and what helps. */
export function rejections({ data }) {
	return () => rejected(data.stats);
}

function rejected(stats) {
	const { count, last, reason, remedy } = stats?.rejected ?? {};
	if (!count) return;
	return t.section(
		{ className: "alert danger modelriver-rejected m-b-base", ariaLabel: "Rejected webhooks" },
		t.h2(null, `${count.toLocaleString()} ${count === 1 ? "webhook was" : "webhooks were"} rejected since the server started`),
		t.p(null, `The last at ${app.utils.toLocalDatetime(last)}: ${reason}. Remedy: ${remedy}.`),
	);
}
