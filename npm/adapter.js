/**
 * What the adapters share.
 *
 * @module
 */

import { liveQuery } from "../pb_public/live-query.js";

/**
 * What is known before the server has said anything.
 * @type {import("../pb_public/live-query.js").Result<any>}
 */
export const nothing = { items: [], status: "connecting", error: null };

/**
 * Starts a live query, but none for null, nor where a server renders the page: nobody
 * would stop it there.
 *
 * @template T
 * @param {import("pocketbase").default} pb
 * @param {string} collection
 * @param {import("../pb_public/live-query.js").Query | null} query
 * @param {(result: import("../pb_public/live-query.js").Result<T>) => void} onChange
 * @returns {() => void} stop
 */
export function follow(pb, collection, query, onChange) {
	return query && globalThis.document ? liveQuery(pb, collection, query, onChange) : () => {};
}
