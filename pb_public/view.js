// What the page shows: its address says so, and is kept so.
import PocketBase from "./vendor/pocketbase.es.mjs";

export const pb = new PocketBase(new URL(".", location.href).href);
export const $ = (id) => document.getElementById(id);
export const view = { q: "", category: "", event: "", channel: "", mine: "", item: "" };

/** The id of who is signed in: a session may have ended by itself. */
export const currentViewer = () => (pb.authStore.isValid ? pb.authStore.record?.id : undefined);

/** Where there is room, a list with a reading pane beside it: see style.css. */
export const wide = matchMedia("(min-width: 64rem)");

export function readAddress() {
	const params = new URLSearchParams(location.search);
	for (const name in view) view[name] = params.get(name) ?? "";
}
readAddress();

/** The address of the view, or of one that differs from it. */
export function address(changed = {}) {
	const query = new URLSearchParams(Object.entries({ ...view, ...changed }).filter(([, value]) => value));
	return query.size ? "?" + query : location.pathname;
}

/** The list's filter, as PocketBase takes it. */
export function filter() {
	const all = [];
	const equal = (field, value) => value && all.push(`${field} = ${JSON.stringify(value)}`);
	equal("channelId", view.channel);
	equal("category", view.category);
	equal("eventName", view.event);
	if (view.mine && pb.authStore.record) equal("userId", pb.authStore.record.id);
	if (view.q) {
		const text = JSON.stringify(view.q.replaceAll("%", "\\%"));
		all.push(`(title ~ ${text} || body ~ ${text})`);
	}
	return all.join(" && ");
}
