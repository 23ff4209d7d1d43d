import { shallowRef, toValue, watch } from "vue";
import { follow, nothing } from "./adapter.js";

/** @typedef {import("pocketbase").RecordModel} RecordModel */
/** @typedef {import("../pb_public/live-query.js").Query} Query */

/**
 * The rows of a list as refs, now and whenever they change, until the scope ends. A query
 * that is a ref or a getter may change; null asks nothing.
 *
 * @template [T=RecordModel]
 * @param {import("pocketbase").default} pb
 * @param {string} collection
 * @param {import("vue").MaybeRefOrGetter<Query | null>} [query]
 */
export function useLiveQuery(pb, collection, query = {}) {
	/** @typedef {import("../pb_public/live-query.js").Result<T>} Rows */
	const items = shallowRef(/** @type {Rows["items"]} */ ([]));
	const status = shallowRef(/** @type {Rows["status"]} */ ("connecting"));
	const error = shallowRef(/** @type {Rows["error"]} */ (null));

	/** @param {Rows} result */
	const show = (result) => {
		items.value = result.items;
		status.value = result.status;
		error.value = result.error;
	};
	watch(() => JSON.stringify(toValue(query)), (key, _, onCleanup) => {
		show(nothing);
		onCleanup(follow(pb, collection, JSON.parse(key), show));
	}, { immediate: true });
	return { items, status, error };
}
