/**
 * What a change makes of a list's rows.
 *
 * @module
 */

/** @typedef {import("pocketbase").RecordModel} RecordModel */

/** @typedef {{ action: string, record: RecordModel }} Change */

const DELETED = 1000; // ids kept in memory

/** A list's order and length, and what is known to be deleted. */
export class Rows {
	/**
	 * @param {string | undefined} sort as in getList
	 * @param {number} limit
	 */
	constructor(sort, limit) {
		this.limit = limit;
		this.keys = (sort || "-created,-id").split(",").map((key) => key.trim());
		if (!this.keys.some((key) => /^[-+]?id$/.test(key))) {
			this.keys.push(this.keys[this.keys.length - 1].startsWith("-") ? "-id" : "id");
		}
		this.names = this.keys.map((key) => key.replace(/^[-+]/, ""));
		/** @type {Set<string>} */
		this.deleted = new Set();
	}

	/**
	 * Returns the rows after a change, or null if that cannot be told from it.
	 * @param {RecordModel[]} rows
	 * @param {Change} change
	 */
	apply(rows, { action, record }) {
		const old = rows.find((row) => row.id === record.id);
		const full = rows.length === this.limit;
		if (action === "delete") {
			if (this.deleted.size === DELETED) this.deleted.clear();
			this.deleted.add(record.id);
		}
		if (action === "delete" || action === "leave") {
			if (!old) return rows;
			// In a full list another row takes the place; one that was not deleted as it is has come back.
			const back = action === "delete" && old.updated !== record.updated;
			return full || back ? null : rows.filter((row) => row !== old);
		}
		if (this.deleted.has(record.id)) return null; // it came too late, or the row came back
		if (old && same(old, record)) return rows;
		if (old && !(record.updated > old.updated)) return null;
		const others = rows.filter((row) => row !== old);
		const next = [...others, record].sort((a, b) => this.compare(a, b)).slice(0, this.limit);
		// Before one that has moved to the end of a full list, another row may come.
		return old && full && next[this.limit - 1] === record && this.compare(old, record) ? null : next;
	}

	/**
	 * @param {RecordModel} a
	 * @param {RecordModel} b
	 */
	compare(a, b) {
		for (const [i, name] of this.names.entries()) {
			const [x, y] = [sortable(a[name]), sortable(b[name])];
			if (x !== y) return x < y === this.keys[i].startsWith("-") ? 1 : -1;
		}
		return 0;
	}
}

/**
 * Returns the rows, with the old ones where they are still the same, for whoever compares
 * them.
 * @param {RecordModel[]} old
 * @param {RecordModel[]} rows
 */
export function reuse(old, rows) {
	const reused = rows.map((row) => old.find((before) => same(before, row)) ?? row);
	return reused.length === old.length && reused.every((row, i) => row === old[i]) ? old : reused;
}

/**
 * @param {RecordModel} a
 * @param {RecordModel} b
 */
function same(a, b) {
	return a.id === b.id && a.updated === b.updated && JSON.stringify(a) === JSON.stringify(b);
}

/**
 * Text as SQLite compares it: by characters. JavaScript goes by the halves of some, which come
 * before the last of the others here, and after them there.
 * @param {any} value
 */
function sortable(value) {
	if (typeof value !== "string") return value;
	return value.replace(/[\ud800-\uffff]/g, (half) => String.fromCharCode(half.charCodeAt(0) + (half < "\ue000" ? 0x2000 : -0x800)));
}
