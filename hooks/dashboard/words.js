// How the page "ModelRiver" says times, sizes and errors.

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const CLOCK = new Intl.DateTimeFormat([], { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3600], ["minute", 60]];

/** The date that PocketBase writes as "2026-01-31 10:00:00.000Z". */
export function dateOf(text) {
	return new Date(text.replace(" ", "T"));
}

/** A time that is told shortly, and exactly to who points at it, as PocketBase does. */
export function time(value, state) {
	const date = dateOf(value);
	const isToday = () => date.toDateString() === new Date(state.data.now).toDateString();
	return t.time(
		{ className: "modelriver-time", dateTime: date.toISOString(), ariaDescription: app.attrs.tooltip(app.utils.toLocalDatetime(value) + "\n" + ZONE) },
		t.span({ className: "txt" }, () => isToday() ? CLOCK.format(date) : DAY.format(date)),
		t.span({ className: "txt-hint txt-sm" }, () => relative(date, state.data.now)),
	);
}

/** A day and its time. */
export function moment(value) {
	return DAY.format(dateOf(value));
}

/** How long ago a date was, or how soon it is. */
export function relative(date, now) {
	const seconds = Math.round((date - now) / 1000);
	for (const [unit, length] of UNITS) {
		if (Math.abs(seconds) >= length) return AGO.format(Math.trunc(seconds / length), unit);
	}
	return Math.abs(seconds) < 10 ? "now" : AGO.format(seconds, "second");
}

/** A duration in milliseconds. */
export function duration(ms) {
	const units = [[1000, 1, "ms"], [60_000, 1000, "s"], [3_600_000, 60_000, "min"], [86_400_000, 3_600_000, "h"], [Infinity, 86_400_000, "d"]];
	const [, length, unit] = units.find(([end]) => ms < end);
	return `${unit === "ms" ? ms : (ms / length).toFixed(1).replace(/\.0$/, "")} ${unit}`;
}

/** A number of bytes. */
export function size(bytes) {
	if (bytes < 1024) return `${bytes} bytes`;
	return bytes < 1024 * 1024 ? `${(bytes / 1024).toFixed(1)} KiB` : `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

export function attempts(n) {
	return `${n.toLocaleString()} ${n === 1 ? "attempt" : "attempts"}`;
}

/** Why the server could not be asked. */
export function inWords(err) {
	return err.status === 0 ? "The server does not answer. Trying again …" : err.message;
}
