import { follow, nothing } from "./adapter.js";

/**
 * @template T
 * @typedef {object} Pages
 * @property {T[]} items
 * @property {"LoadingFirstPage" | "CanLoadMore" | "LoadingMore" | "Exhausted" | "Failed"} status
 * @property {(numItems: number) => void} loadMore does nothing unless status is CanLoadMore
 * @property {Error | null} error why the last attempt failed
 */

const MOST = 1000; // rows that PocketBase lists

/**
 * A store of the first rows of a list, which grows on demand. It asks for one row more
 * than it shows: whether there is one tells if more can be loaded. The larger list is a
 * query of its own; the old one goes on until that one has rows.
 *
 * @param {import("pocketbase").default} pb
 * @param {string} collection
 * @param {object | null} query
 * @param {number} size
 */
export function pagesOf(pb, collection, query, size) {
	let result = nothing;
	let tell = () => {};
	let stop = () => {};
	/** @type {(() => void) | null} */
	let stopLarger = null;
	let pages = look();

	/** @returns {Pages<any>} */
	function look() {
		const { items, status, error } = result;
		return { items: items.slice(0, size), status: progress(items.length, status), error, loadMore };
	}

	/**
	 * @param {number} known
	 * @param {string} status
	 */
	function progress(known, status) {
		if (status === "failed") return "Failed";
		if (!known && status !== "live") return "LoadingFirstPage";
		if (stopLarger) return "LoadingMore";
		return known > size ? "CanLoadMore" : "Exhausted";
	}

	/** @param {typeof nothing} next */
	function show(next) {
		result = next;
		pages = look();
		tell();
	}

	/** @param {number} wanted */
	function start(wanted) {
		const limit = Math.min(wanted + 1, MOST);
		const end = follow(pb, collection, query && { ...query, limit }, (/** @type {typeof nothing} */ next) => {
			if (end === stopLarger) {
				if (!next.items.length && next.status !== "live" && next.status !== "failed") return;
				stop();
				stop = end;
				stopLarger = null;
				size = wanted;
			}
			show(next);
		});
		return end;
	}

	/** @param {number} numItems */
	function loadMore(numItems) {
		if (pages.status !== "CanLoadMore") return;
		stopLarger = start(Math.min(size + numItems, MOST));
		show(result);
	}

	return {
		read: () => pages,
		/** @param {() => void} notify */
		subscribe(notify) {
			stop = start(size);
			tell = notify;
			return () => {
				stop();
				stopLarger?.();
				stopLarger = null;
				result = nothing; // the next subscriber may show another viewer's page
				pages = look();
			};
		},
	};
}
