import { useMemo, useSyncExternalStore } from "react";
import { askerOf } from "./asker.js";
import { follow, nothing } from "./adapter.js";
import { pagesOf } from "./pages.js";

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("pocketbase").RecordModel} RecordModel */
/** @typedef {import("../pb_public/live-query.js").Query} Query */

/**
 * The rows of a list, now and whenever they change. A query that is equal to the last one
 * goes on; null asks nothing.
 *
 * @template [T=RecordModel]
 * @param {PocketBase} pb one for all renders
 * @param {string} collection
 * @param {Query | null} [query]
 * @returns {import("../pb_public/live-query.js").Result<T>}
 */
export function useLiveQuery(pb, collection, query = {}) {
	const key = JSON.stringify(query);
	const store = useMemo(() => storeOf(pb, collection, JSON.parse(key)), [pb, collection, key]);
	return useSyncExternalStore(store.subscribe, store.read, () => nothing);
}

/**
 * The first rows of a list, and more of them on demand, 1000 at most. Rows stay, and stay
 * live, while more are loaded.
 *
 * @template [T=RecordModel]
 * @param {PocketBase} pb one for all renders
 * @param {string} collection
 * @param {Omit<Query, "limit"> | null} query
 * @param {{ initialNumItems: number }} options
 * @returns {import("./pages.js").Pages<T>}
 */
export function usePaginatedLiveQuery(pb, collection, query, { initialNumItems }) {
	const key = JSON.stringify(query);
	const store = useMemo(() => pagesOf(pb, collection, JSON.parse(key), initialNumItems), [pb, collection, key, initialNumItems]);
	return useSyncExternalStore(store.subscribe, store.read, store.read);
}

/**
 * Asks ModelRiver on demand, and holds what becomes of it.
 *
 * @template [T=RecordModel]
 * @param {PocketBase} pb one for all renders
 * @returns {import("./asker.js").Asked<T>}
 */
export function useAsk(pb) {
	const store = useMemo(() => askerOf(pb), [pb]);
	return useSyncExternalStore(store.subscribe, store.read, store.read);
}

/**
 * @param {PocketBase} pb
 * @param {string} collection
 * @param {Query | null} query
 */
function storeOf(pb, collection, query) {
	let result = nothing;
	return {
		read: () => result,
		/** @param {() => void} tell */
		subscribe(tell) {
			result = nothing; // what an earlier subscriber saw may be another viewer's
			return follow(pb, collection, query, (/** @type {typeof nothing} */ next) => {
				result = next;
				tell();
			});
		},
	};
}
