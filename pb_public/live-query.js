/**
 * Live queries for PocketBase: a list that is always the one the server would give.
 *
 *     const stop = liveQuery(pb, "aiContent", { limit: 10 }, ({ items, status }) => { … });
 *
 * PocketBase's realtime events come without order or replay, and none at all for a row
 * that leaves a filter or a rule. So an event changes the rows here only if it leaves no
 * doubt; otherwise, and after every lost connection, the list is fetched again.
 *
 * PocketRiver also tells what leaves, and whether its events tell everything of a query.
 * Then they alone keep the list, and it is not asked for again while the stream is open.
 *
 * The module is five files: copy them together. live-stream.js and live-connection.js bring
 * the events, live-tabs.js those of one connection to all tabs of a browser, and live-rows.js
 * knows what they make of a list.
 *
 * @module
 */

import { backoff, jitter, unheard } from "./live-connection.js";
import { reuse, Rows } from "./live-rows.js";
import { streamOf } from "./live-stream.js";

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("pocketbase").RecordModel} RecordModel */
/** @typedef {import("./live-rows.js").Change} Change */
/** @typedef {import("./live-connection.js").Live} Live */

/**
 * @typedef {object} Query
 * @property {string} [filter] a PocketBase filter; all rows by default
 * @property {string} [sort] by default "-created,-id"; id is added if it is missing, so that the order is always the same
 * @property {number} [limit] how many rows, 1 to 1000, by default 50
 * @property {string} [fields] as in getList; leave id in it
 * @property {string} [expand] as in getList; a change of only the expanded record shows within a minute
 */

/**
 * What a list is at a time. Rows and list are replaced when they change, never altered.
 *
 * @template [T=RecordModel]
 * @typedef {object} Result
 * @property {T[]} items
 * @property {"connecting" | "live" | "offline" | "failed"} status
 *   live: items are what the server has. connecting, offline: items are the last that were
 *   known, and it is tried again, when the tab is shown. failed: the server refused the
 *   query, or it cannot be live, see error
 * @property {Error | null} error why the last attempt failed
 */

// Times are milliseconds of performance.now(): nobody sets that clock.
const EMIT_EVERY = 50;
const GAP = 500; // between two fetches for events
const POLL_LIVE = 60_000; // for rows that left a rule, of which no event tells
const POLL_OFFLINE = 10_000;
const HANGING = 30_000; // a fetch that takes longer has failed

/**
 * Calls onChange with the rows of a list now and whenever they or the status change,
 * until the returned function is called.
 *
 * @template [T=RecordModel]
 * @param {PocketBase} pb
 * @param {string} collection
 * @param {Query} query
 * @param {(result: Result<T>) => void} onChange
 * @returns {() => void} stop
 */
export function liveQuery(pb, collection, query, onChange) {
	const { limit = 50 } = query;
	if (!(Number.isInteger(limit) && limit >= 1 && limit <= 1000)) {
		throw new RangeError("liveQuery: limit must be 1 to 1000");
	}
	const list = new List(pb, collection, { ...query, limit }, /** @type {(result: Result<any>) => void} */ (onChange));
	list.start();
	return () => list.stop();
}

/** The list of one query. To its stream it is a listener. */
class List {
	/** @type {Result} */
	result = { items: [], status: "connecting", error: null };
	emitted = this.result; // whoever calls knows that nothing is known yet
	emitTimer = 0;
	emittedAt = -EMIT_EVERY;

	topic = "";
	fetched = false;
	refused = false;
	failures = 0;
	active = false; // the stream brings our events
	synced = false; // fetched since
	stale = false; // something has changed since, or since it is being fetched
	/**
	 * What is known of these events. While there are none: the rows are what they were at the last
	 * one of which this was said.
	 * @type {Live | null}
	 */
	says = null;
	started = 0;
	took = 0;
	loadTimer = 0;
	due = 0;
	/** @type {AbortController | null} */
	loading = null;
	/** @type {Change[]} */
	meanwhile = []; // while loading
	/**
	 * Rows that the server said are gone, and when, until a list without them is there.
	 * @type {Map<string, number>}
	 */
	gone = new Map();

	/**
	 * @param {PocketBase} pb
	 * @param {string} collection
	 * @param {Query & { limit: number }} query
	 * @param {(result: Result) => void} onChange
	 */
	constructor(pb, collection, query, onChange) {
		this.pb = pb;
		this.collection = collection;
		this.query = query;
		this.filter = query.filter;
		this.onChange = onChange;
		this.rows = new Rows(query.sort, query.limit);
		this.stream = streamOf(pb);
	}

	start() {
		const error = unheard();
		if (error) {
			this.refused = true;
			return this.update({ error });
		}
		this.stream.add(this);
		if (!this.loading) this.load();
	}

	stop() {
		this.stream.remove(this);
		this.loadNever();
		clearTimeout(this.emitTimer);
	}

	/** @param {Partial<Result>} changed */
	update(changed) {
		const { refused, synced, failures, stream } = this;
		this.result = { ...this.result, ...changed };
		this.result.status = refused ? "failed" : synced ? "live" : failures || stream.state.failures ? "offline" : "connecting";
		this.emitTimer ||= setTimeout(() => this.emit(), Math.max(0, this.emittedAt + EMIT_EVERY - performance.now()));
	}

	emit() {
		clearTimeout(this.emitTimer);
		this.emitTimer = 0;
		const { items, status, error } = this.result;
		if (items === this.emitted.items && status === this.emitted.status && error === this.emitted.error) return;
		this.emittedAt = performance.now();
		this.emitted = this.result;
		this.onChange(this.result);
	}

	/** Whether an event is enough to know a row's place. */
	byEvents() {
		const { filter, fields, expand } = this.query;
		const sortable = this.says?.sortable ?? (filter ? [] : ["created", "id"]); // by which it never moves
		return !fields && !expand && this.rows.names.every((name) => sortable.includes(name));
	}

	/** @param {number} delay until the next load, unless one comes earlier */
	loadIn(delay) {
		const at = performance.now() + delay;
		if (this.loadTimer && this.due <= at) return;
		clearTimeout(this.loadTimer);
		this.due = at;
		this.loadTimer = setTimeout(() => this.load(), Math.max(0, delay));
	}

	/** Ends what is loading, and has nothing loaded later. */
	loadNever() {
		clearTimeout(this.loadTimer);
		this.loadTimer = 0;
		this.loading?.abort();
		this.loading = null;
	}

	/** Looks by and by for what no event tells. */
	poll() {
		if (this.synced && this.says?.exact && !this.query.expand) return;
		this.loadIn((this.synced ? POLL_LIVE : POLL_OFFLINE) * jitter());
	}

	// Has the list loaded soon. A burst of events makes few requests, and a slow server
	// gets time to breathe.
	invalidate() {
		this.stale = true;
		if (!this.active) this.says = null; // what comes before the server says that the list goes on
		if (!this.loading) this.loadIn(this.started + Math.max(GAP, 3 * this.took) - performance.now());
	}

	async load() {
		this.loadNever();
		if (this.stream.resting && (this.fetched || this.refused)) return this.poll();
		const mine = (this.loading = new AbortController());
		this.loadTimer = setTimeout(() => this.failed(new Error("The server did not answer in time")), HANGING);
		this.stale = false;
		this.meanwhile = [];
		this.started = performance.now();
		const synced = this.active;
		const { filter, fields, expand, limit } = this.query;
		try {
			const page = await this.pb.collection(this.collection).getList(1, limit, {
				filter, fields, expand, sort: this.rows.keys.join(","), skipTotal: true, signal: mine.signal, ...this.stream.options,
			});
			if (this.loading !== mine || this.stream.checkViewer()) return;
			if (!page.page) throw new Error("The answer was cut off"); // an empty list to the SDK
			this.loaded(page.items, synced);
		} catch (err) {
			if (this.loading === mine) this.failed(err);
		}
	}

	/**
	 * @param {RecordModel[]} items
	 * @param {boolean} synced
	 */
	loaded(items, synced) {
		this.loadNever();
		this.took = (this.took + performance.now() - this.started) / 2; // one that was slow says little
		this.failures = 0;
		this.refused = false;
		this.fetched = true;
		this.synced = synced && this.active; // the stream may be lost since
		if (!this.active) this.says = null;
		for (const [id, at] of this.gone) if (at < this.started) this.gone.delete(id);
		let rows = reuse(this.result.items, items);
		for (const change of this.meanwhile) {
			const next = this.rows.apply(rows, change);
			if (next) rows = next;
			else this.stale = true;
		}
		this.poll();
		if (this.stale) this.invalidate();
		this.update({ items: rows, error: null });
	}

	/** @param {any} err */
	failed(err) {
		this.loadNever();
		this.synced = false;
		// PocketBase says its own status in the body; a proxy's page may pass.
		const { status, response } = /** @type {import("pocketbase").ClientResponseError} */ (err);
		this.refused = status >= 400 && status < 500 && ![408, 425, 429].includes(status) && response?.status === status;
		if (this.refused) this.fetched = false;
		this.loadIn(this.refused && !this.stale ? POLL_OFFLINE : backoff(this.failures++)); // who may see it may have changed meanwhile
		const rows = this.result.items;
		this.update({ items: this.refused ? [] : this.gone.size ? rows.filter(({ id }) => !this.gone.has(id)) : rows, error: err });
	}

	/** @param {Live} says */
	live(says) {
		const goesOn = this.fetched && this.says && says.continued && says.exact && !this.query.expand;
		this.says = says;
		if (!goesOn) {
			this.active = true;
			if (this.loading && !this.fetched) this.stale = true; // the first rows may be shown before that
			else this.load();
			return;
		}
		if (this.active) return;
		this.active = this.synced = true;
		this.loadNever();
		this.update({ error: null });
	}

	/** @param {Change} change */
	change(change) {
		const known = this.byEvents();
		if (known && this.loading) this.meanwhile.push(change);
		if (known && !this.fetched) return;
		const items = known && this.rows.apply(this.result.items, change);
		if (items) return this.update({ items });
		if (change.action === "leave" || change.action === "delete") this.gone.set(change.record.id, performance.now());
		if (!known || !this.loading || !this.active) this.invalidate();
	}

	/** @param {boolean} goesOn */
	closed(goesOn) {
		const current = this.synced && !this.loading && !this.stale;
		if (!goesOn || (this.active && !current)) this.says = null;
		this.active = this.synced = false;
		if (!this.loading) this.poll();
		this.update({});
	}

	reset() {
		this.fetched = this.refused = false;
		this.failures = 0;
		this.update({ items: [], error: null });
		this.load();
		try {
			this.emit(); // nobody sees another's rows, not for a moment; who is told may stop the query
		} catch (err) {
			queueMicrotask(() => { throw err; }); // a page that fails keeps no other list from this
		}
	}
}
