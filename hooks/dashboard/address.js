// The address of the page "ModelRiver". Its query says what the list shows, and whose drawer is open.

export const FILTERS = ["state", "event", "category", "user", "search", "from", "to"];

/** The query of an address. PocketBase's own pages may leave something of theirs there. */
export function queryOf(address) {
	const query = new URLSearchParams(address.split("?")[1] ?? "");
	return Object.fromEntries([...FILTERS, "id"].filter((name) => query.get(name)).map((name) => [name, query.get(name)]));
}

/** The query as it is written in an address. */
export function inAddress(query) {
	const text = new URLSearchParams(Object.entries(query).filter(([, value]) => value)).toString();
	return text && "?" + text;
}

/** Whether anything is left out of the list. */
export function isFiltered(query) {
	return FILTERS.some((name) => query[name]);
}
