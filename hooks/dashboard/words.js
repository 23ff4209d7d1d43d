// How the page "ModelRiver" says when something was, and why it could not be loaded.
import { parseDate } from "./format.js";

const ZONE = Intl.DateTimeFormat().resolvedOptions().timeZone;
const CLOCK = new Intl.DateTimeFormat([], { timeStyle: "medium" });
const DAY = new Intl.DateTimeFormat([], { dateStyle: "medium", timeStyle: "short" });
const AGO = new Intl.RelativeTimeFormat("en", { numeric: "auto", style: "short" });
const UNITS = [["year", 31_536_000], ["month", 2_592_000], ["day", 86_400], ["hour", 3600], ["minute", 60]];

/** A time that is told shortly, and exactly to who points at it, as PocketBase does. */
export function time(value, state) {
	const date = parseDate(value);
	const isToday = () => date.toDateString() === new Date(state.data.now).toDateString();
	return t.time(
		{ className: "modelriver-time", dateTime: date.toISOString(), ariaDescription: app.attrs.tooltip(app.utils.toLocalDatetime(value) + "\n" + ZONE) },
		t.span({ className: "txt" }, () => isToday() ? CLOCK.format(date) : DAY.format(date)),
		t.span({ className: "txt-hint txt-sm" }, () => relative(date, state.data.now)),
	);
}

/** A day and its time. */
export function moment(value) {
	return DAY.format(parseDate(value));
}

/** How long ago a date was, or how soon it is. */
export function relative(date, now) {
	const seconds = Math.round((date - now) / 1000);
	for (const [unit, length] of UNITS) {
		if (Math.abs(seconds) >= length) return AGO.format(Math.trunc(seconds / length), unit);
	}
	return Math.abs(seconds) < 10 ? "now" : AGO.format(seconds, "second");
}

/** Why the server could not be asked. */
export function inWords(err) {
	return err.status === 0 ? "The server does not answer. Trying again …" : err.message;
}
