// How the panels of the page "ModelRiver" write numbers and times, and where webhooks come in.

export function formatCount(n) {
	return (n ?? 0).toLocaleString();
}

/** "1 webhook", "1,200 webhooks" */
export function plural(n, noun) {
	return `${formatCount(n)} ${noun}${n === 1 ? "" : "s"}`;
}

export function formatDuration(ms) {
	if (ms == null) return "–";
	const units = [[1000, "s"], [60_000, "min"], [3_600_000, "h"], [86_400_000, "d"]].filter(([length]) => ms >= length);
	if (!units.length) return `${ms} ms`;
	const [length, unit] = units.pop();
	return `${(ms / length).toFixed(1)} ${unit}`;
}

export function formatSize(bytes) {
	return bytes < 1024 ? `${bytes ?? 0} B` : bytes < 1024 ** 2 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 ** 2).toFixed(1)} MiB`;
}

/** The Date of PocketBase's "2026-01-31 10:00:00.000Z". */
export function parseDate(text) {
	return new Date(text.replace(" ", "T"));
}

/** The viewer's local time, to the second. */
export function formatTime(text) {
	return app.utils.toLocalDatetime(text).slice(0, 19);
}

/** The start of the viewer's day, as endpoints take it. */
export function midnight() {
	const date = new Date();
	date.setHours(0, 0, 0, 0);
	return date.toISOString();
}

/** The address that ModelRiver has to call. */
export function webhookURL(stats) {
	return new URL(app.pb.buildURL(stats.path)).href; // the dashboard's own base is "/_/../"
}
