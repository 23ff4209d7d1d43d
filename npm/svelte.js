import { readable } from "svelte/store";
import { follow, nothing } from "./adapter.js";

/** @typedef {import("pocketbase").RecordModel} RecordModel */

/**
 * A store of a list's rows, live while somebody subscribes.
 *
 * @template [T=RecordModel]
 * @param {import("pocketbase").default} pb
 * @param {string} collection
 * @param {import("../pb_public/live-query.js").Query | null} [query] null asks nothing
 * @returns {import("svelte/store").Readable<import("../pb_public/live-query.js").Result<T>>}
 */
export function liveQueryStore(pb, collection, query = {}) {
	return readable(nothing, (set) => {
		set(nothing); // what an earlier subscriber saw may be another viewer's
		return follow(pb, collection, query, set);
	});
}
