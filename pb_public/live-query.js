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
 * The stream is not the SDK's own. That one never retries a failed first connection,
 * and keeps the identity it was opened with: after a sign-out it still brings the old
 * user's events. It could only be renewed by dropping the subscriptions of others.
 *
 * A browser has six connections to a host over HTTP/1.1, and each tab's stream takes one.
 * So a tab that has been hidden for 10 seconds gives it up, and asks nothing until it is
 * shown again; one that nobody has seen yet lists once.
 *
 * @module
 */

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("pocketbase").RecordModel} RecordModel */

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
 * @typedef {object} Result
 * @property {RecordModel[]} items
 * @property {"connecting" | "live" | "offline" | "failed"} status
 *   live: items are what the server has. connecting, offline: items are the last that were
 *   known, and it is tried again, when the tab is shown. failed: the server refused the
 *   query, or it cannot be live, see error
 * @property {Error | null} error why the last attempt failed
 */

/** @typedef {{ action: string, record: RecordModel }} Change */

/**
 * What the server says of a subscription: exact if its events tell of every row that
 * enters or leaves it, and by which fields rows can be put in the server's order.
 * @typedef {{ exact: boolean, sortable: string[] }} Live
 */

/**
 * A query as its stream sees it.
 * @typedef {object} Listener
 * @property {string} collection
 * @property {string} [filter]
 * @property {string} topic as it is subscribed now
 * @property {(change: Change) => void} change
 * @property {(live: Live) => void} live
 * @property {() => void} opened the stream brings the topic's events from now on
 * @property {() => void} closed
 * @property {() => void} reset somebody else is signed in
 */

// Times are milliseconds of performance.now(): nobody sets that clock.
const EMIT_EVERY = 50;
const MIN_GAP = 100; // between two fetches for events, doubled while they keep coming
const MAX_GAP = 1000;
const RETRY_MIN = 200;
const RETRY_MAX = 10_000;
const POLL_LIVE = 60_000; // for rows that left a rule, of which no event tells
const POLL_OFFLINE = 10_000;
const HANGING = 5_000;
const SIGN_IN = 2_000; // time to do so before what a guest sees is shown
const CONNECT_TIMEOUT = 15_000;
const TICK = 5_000;
const HIDDEN = 10_000;
const ASLEEP = 60_000; // a page that long unseen may have a stream that only looks open
const SILENT = 330_000; // PocketBase ends a stream that is idle for 5 minutes: later it is dead
const ALIVE = 60_000; // PocketRiver is heard every 25 seconds
const MANY = 1000; // changes or ids kept in memory
const TOPIC_BYTES = 2500; // PocketBase refuses all topics for a longer one, or for more
const TOPICS = 1000;

/**
 * Calls onChange with the rows of a list now and whenever they or the status change,
 * until the returned function is called.
 *
 * @param {PocketBase} pb
 * @param {string} collection
 * @param {Query} query
 * @param {(result: Result) => void} onChange
 * @returns {() => void} stop
 */
export function liveQuery(pb, collection, query, onChange) {
	const { filter, fields, expand, limit = 50 } = query;
	if (!(Number.isInteger(limit) && limit >= 1 && limit <= 1000)) {
		throw new RangeError("liveQuery: limit must be 1 to 1000, as in PocketBase's lists");
	}
	const keys = (query.sort || "-created,-id").split(",").map((key) => key.trim());
	if (!keys.some((key) => /^[-+]?id$/.test(key))) {
		keys.push(keys[keys.length - 1].startsWith("-") ? "-id" : "id");
	}
	const names = keys.map((key) => key.replace(/^[-+]/, ""));
	const stream = streamOf(pb);

	/** @type {Result} */
	let result = { items: [], status: "connecting", error: null };
	let emitted = result; // whoever calls knows that nothing is known yet
	let emitTimer = 0;
	let emittedAt = -EMIT_EVERY;

	let fetched = false;
	let refused = false;
	let failures = 0;
	let active = false; // the stream brings our events
	let synced = false; // fetched since
	/** @type {Live | null} */
	let live = null; // what the server says of these events; stock PocketBase says nothing
	let gap = MIN_GAP;
	let started = 0;
	let took = 0;
	let loadTimer = 0;
	let due = 0;
	let polling = false; // what is due is no more than a look
	/** @type {AbortController | null} */
	let loading = null;
	let stale = false; // what is being loaded may be
	/** @type {Change[]} */
	let meanwhile = []; // while loading
	/** @type {Set<string>} */
	let deleted = new Set();

	/** @param {Partial<Result>} changed */
	function update(changed) {
		result = { ...result, ...changed };
		result.status = refused ? "failed" : synced ? "live" : failures || stream.failing() ? "offline" : "connecting";
		if (!emitTimer) emitTimer = setTimer(emit, emittedAt + EMIT_EVERY - performance.now());
	}

	function emit() {
		clearTimeout(emitTimer);
		emitTimer = 0;
		const { items, status, error } = result;
		if (items === emitted.items && status === emitted.status && error === emitted.error) return;
		emittedAt = performance.now();
		emitted = result;
		onChange(result);
	}

	/** Whether an event is enough to know a row's place. */
	function byEvents() {
		if (fields || expand) return false;
		if (live) return names.every((name) => live?.sortable.includes(name));
		return !filter && names.every((name) => name === "created" || name === "id"); // it never moves
	}

	/** @param {number} delay until the next load, unless one comes earlier */
	function loadIn(delay) {
		if (stream.parked() && (fetched || refused)) return;
		const at = performance.now() + delay;
		if (loadTimer && due <= at) return;
		clearTimeout(loadTimer);
		due = at;
		polling = false;
		loadTimer = setTimer(load, delay);
	}

	/** Looks by and by for what no event tells. */
	function poll() {
		if (polling && loadTimer) {
			clearTimeout(loadTimer);
			loadTimer = 0;
		}
		if (loadTimer || (synced && live?.exact && !expand)) return;
		loadIn((synced ? POLL_LIVE : POLL_OFFLINE) * jitter());
		polling = true;
	}

	// Has the list loaded soon. A burst of events makes few requests, and a slow server
	// gets time to breathe.
	function invalidate() {
		if (loading) {
			stale = true;
			return;
		}
		const now = performance.now();
		if (loadTimer && due - now <= MAX_GAP) return;
		gap = now - started > 2 * MAX_GAP ? MIN_GAP : Math.min(2 * gap, MAX_GAP);
		loadIn(started + Math.max(gap, 3 * took) - now);
	}

	async function load() {
		clearTimeout(loadTimer);
		loadTimer = 0;
		loading?.abort();
		const mine = (loading = new AbortController());
		stale = false;
		meanwhile = [];
		started = performance.now();
		const mayBeSynced = active;
		try {
			const page = await pb.collection(collection).getList(1, limit, {
				filter, fields, expand, sort: keys.join(","), skipTotal: true, requestKey: null, signal: mine.signal,
			});
			if (loading !== mine) return;
			if (!page.page) throw new Error("The answer was cut off"); // an empty list to the SDK
			took = performance.now() - started;
			loading = null;
			failures = 0;
			refused = false;
			fetched = true;
			synced = mayBeSynced;
			let rows = reuse(page.items);
			for (const change of meanwhile) {
				const next = apply(rows, change);
				if (next) rows = next;
				else stale = true;
			}
			meanwhile = [];
			poll();
			if (stale) invalidate();
			update({ items: rows, error: null });
		} catch (err) {
			if (loading !== mine) return;
			loading = null;
			synced = false;
			// PocketBase says its own status in the body; a proxy's page may pass.
			const { status = 0, response } = /** @type {import("pocketbase").ClientResponseError} */ (err);
			refused = status >= 400 && status < 500 && ![408, 425, 429].includes(status) && response?.status === status;
			loadIn(refused ? POLL_OFFLINE : backoff(failures++));
			update({ items: refused ? [] : result.items, error: /** @type {Error} */ (err) });
		}
	}

	/**
	 * Keeps the rows that are still the same, for whoever compares them.
	 * @param {RecordModel[]} rows
	 */
	function reuse(rows) {
		const known = new Map(result.items.map((row) => [row.id, row]));
		rows = rows.map((row) => {
			const old = known.get(row.id);
			return old && same(old, row) ? old : row;
		});
		return rows.length === result.items.length && rows.every((row, i) => row === result.items[i]) ? result.items : rows;
	}

	/**
	 * Returns the rows after a change, or null if that cannot be told from it.
	 * @param {RecordModel[]} rows
	 * @param {Change} change
	 */
	function apply(rows, { action, record }) {
		const at = rows.findIndex((row) => row.id === record.id);
		const old = rows[at];
		if (action === "leave") {
			if (!old) return rows;
			return rows.length === limit ? null : rows.filter((row) => row !== old);
		}
		if (action === "delete") {
			if (deleted.size === MANY) deleted = new Set();
			deleted.add(record.id);
			if (!old) return rows;
			// In a full list another row takes the place; a newer one has come back.
			if (rows.length === limit || old.updated !== record.updated) return null;
			return rows.filter((row) => row !== old);
		}
		if (deleted.has(record.id)) return null; // it came too late, or the row came back
		if (!old) return place(rows, record);
		if (same(old, record)) return rows;
		if (!(record.updated > old.updated)) return null;
		if (!compare(old, record)) return rows.map((row) => (row === old ? record : row));
		const moved = place(rows.filter((row) => row !== old), record);
		// At the end of a full list another row may come before it.
		return rows.length === limit && moved[limit - 1] === record ? null : moved;
	}

	/**
	 * Returns the rows with one more in its place, if that is in the list.
	 * @param {RecordModel[]} rows
	 * @param {RecordModel} record
	 */
	function place(rows, record) {
		const before = rows.findIndex((row) => compare(record, row) < 0);
		const at = before < 0 ? rows.length : before;
		return [...rows.slice(0, at), record, ...rows.slice(at)].slice(0, limit);
	}

	/**
	 * @param {RecordModel} a
	 * @param {RecordModel} b
	 */
	function compare(a, b) {
		for (const [i, name] of names.entries()) {
			const order = compareValues(a[name], b[name]);
			if (order) return keys[i].startsWith("-") ? -order : order;
		}
		return 0;
	}

	/** @type {Listener} */
	const listener = {
		collection,
		filter,
		topic: "",
		live(says) {
			live = says;
			if (fetched && !loading) poll();
		},
		change(change) {
			if (!byEvents()) return invalidate();
			if (loading) {
				if (meanwhile.length < MANY) meanwhile.push(change);
				else stale = true;
			}
			if (!fetched) return;
			const items = apply(result.items, change);
			if (items) update({ items });
			else if (!loading) invalidate();
		},
		opened() {
			active = true;
			if (!loading || fetched) return load();
			stale = true; // the first rows may be shown before that, unless they hang
			loadIn(HANGING);
		},
		closed() {
			active = synced = false;
			live = null;
			if (stream.parked()) {
				clearTimeout(loadTimer);
				loadTimer = 0;
			}
			if (!loading) loadIn(POLL_OFFLINE * jitter());
			update({});
		},
		reset() {
			fetched = refused = synced = false;
			live = null;
			failures = 0;
			deleted = new Set();
			update({ items: [], error: null });
			load();
			emit(); // nobody sees another's rows, not for a moment; who is told may stop the query
		},
	};

	const obstacle = stream.obstacle(listener);
	if (obstacle) {
		refused = true;
		update({ error: new Error("liveQuery: " + obstacle) });
		return () => clearTimeout(emitTimer);
	}
	stream.add(listener);
	if (!loading) load();
	return () => {
		stream.remove(listener);
		loading?.abort();
		loading = null;
		clearTimeout(loadTimer);
		clearTimeout(emitTimer);
	};
}

/** @type {WeakMap<PocketBase, ReturnType<typeof createStream>>} */
const streams = new WeakMap();

/** @param {PocketBase} pb */
function streamOf(pb) {
	const stream = streams.get(pb) ?? createStream(pb);
	streams.set(pb, stream);
	return stream;
}

/**
 * The one stream of events for all live queries of a client, open while there are any.
 * @param {PocketBase} pb
 */
function createStream(pb) {
	/** @type {Set<Listener>} */
	const listeners = new Set();
	/** @type {EventSource | null} */
	let source = null;
	let clientId = "";
	/** @type {Set<string>} */
	let heardTopics = new Set(); // on the source
	/** @type {Set<string>} */
	let sentTopics = new Set(); // that the server brings
	let sentToken = ""; // and for whom
	let askedToken = ""; // of the last request for that
	let streamToken = ""; // of the one that the stream has told of
	let deadToken = ""; // that the server knows no more, while a new one is waited for
	/** @type {string[]} */
	let tellsLeave = []; // collections of which the server tells what leaves
	/** @type {Map<string, Live>} */
	let said = new Map(); // of the topics' events
	/** @type {AbortController | null} */
	let request = null; // that tells it
	let open = false;
	let failing = false;
	let attempts = 0;
	let retryTimer = 0;
	let connectTimer = 0;
	let endTimer = 0;
	let ticker = 0;
	let hideTimer = 0;
	let parked = false; // hidden, and without a stream
	let seen = 0; // when the page was last seen awake, by the clock that goes on while a machine sleeps
	let heard = 0; // when the server was last heard
	let viewer = "";
	let unbind = () => {};

	function begin() {
		viewer = currentViewer();
		ticker = Number(setInterval(tick, TICK));
		const page = globalThis.document;
		parked = !!page?.hidden;
		/** @type {[EventTarget | undefined, string, (event: any) => void][]} */
		const bindings = [
			[globalThis.window, "online", connect],
			[globalThis.window, "offline", lost],
			[globalThis.window, "pageshow", (event) => event.persisted && connect()],
			[page, "resume", connect],
			[page, "visibilitychange", turn],
		];
		const unbindAuth = pb.authStore.onChange(() => checkViewer() || recognized() || post());
		for (const [target, type, run] of bindings) target?.addEventListener(type, run);
		unbind = () => {
			unbindAuth();
			for (const [target, type, run] of bindings) target?.removeEventListener(type, run);
		};
		connect();
	}

	function end() {
		unbind();
		clearInterval(ticker);
		clearTimeout(hideTimer);
		ticker = attempts = 0;
		failing = parked = false;
		close();
	}

	/** Gives the stream up if the page stays hidden, and opens it when it is shown. */
	function turn() {
		clearTimeout(hideTimer);
		if (globalThis.document.hidden) {
			hideTimer = setTimer(park, HIDDEN);
			return;
		}
		if (parked) {
			parked = false;
			connect();
		}
		tick();
	}

	function park() {
		parked = true;
		failing = false;
		attempts = 0;
		close();
	}

	/** Looks after what no event tells. */
	function tick() {
		if (checkViewer() || globalThis.document?.hidden) return;
		const slept = Date.now() - seen > ASLEEP;
		seen = Date.now();
		if (slept || (open && performance.now() - heard > (said.size ? ALIVE : SILENT))) connect();
	}

	function currentViewer() {
		const { isValid, record, token } = pb.authStore;
		return !isValid ? "" : record ? record.collectionId + "/" + record.id : token;
	}

	/** Begins anew if somebody else is signed in, or nobody any more. */
	function checkViewer() {
		const now = currentViewer();
		if (now === viewer) return false;
		viewer = now;
		close();
		for (const listener of listeners) listener.reset();
		connect();
		return true;
	}

	function connect() {
		if (parked) return;
		close();
		deadToken = "";
		seen = Date.now();
		source = new EventSource(pb.buildURL("/api/realtime"));
		connectTimer = setTimer(lost, CONNECT_TIMEOUT);
		source.onerror = lost;
		source.addEventListener("PB_CONNECT", (event) => {
			clientId = event.lastEventId;
			tellsLeave = JSON.parse(event.data).live ?? [];
			for (const listener of listeners) listen(listener);
			post();
		});
	}

	function close() {
		clearTimeout(retryTimer);
		clearTimeout(connectTimer);
		source?.close();
		source = null;
		request?.abort();
		clientId = "";
		heardTopics = new Set();
		sentTopics = new Set();
		said = new Map();
		open = false;
		for (const listener of listeners) listener.closed();
	}

	function lost() {
		if (parked) return;
		failing = !open; // an open stream that ends is PocketBase's way
		close();
		retryTimer = setTimer(connect, backoff(attempts++));
	}

	/**
	 * The server does not know any more who the viewer is: the user's password or tokens have
	 * changed, or the user is gone. Whoever signs in again keeps the rows until then.
	 */
	function recognize() {
		close();
		deadToken = streamToken;
		if (!recognized()) retryTimer = setTimer(connect, SIGN_IN);
	}

	/** Goes on at once with a new token. */
	function recognized() {
		if (!deadToken || deadToken === pb.authStore.token) return false;
		connect();
		return true;
	}

	/**
	 * Gives the listener its topic on this stream. PocketBase filters the events of a topic,
	 * but does not tell what leaves the filter: without that, all events are needed.
	 * @param {Listener} listener
	 */
	function listen(listener) {
		const { collection, filter } = listener;
		let topic = collection + "/*";
		if (tellsLeave.includes(collection)) {
			const options = filter ? "&options=" + encodeURIComponent(JSON.stringify({ query: { filter } })) : "";
			if (bytes(topic + "?leave=1" + options) <= TOPIC_BYTES) topic += "?leave=1" + options;
		}
		listener.topic = topic;
		if (heardTopics.has(topic)) return;
		heardTopics.add(topic);
		source?.addEventListener(topic, (event) => {
			heard = performance.now();
			if (checkViewer()) return;
			const change = JSON.parse(event.data);
			if (change.action === "live") {
				said.set(topic, change);
				streamToken = askedToken;
			}
			for (const listener of listeners) {
				if (listener.topic !== topic) continue;
				if (change.action === "unidentified") return recognize();
				if (change.action === "live") listener.live(change);
				else if (change.action !== "alive") listener.change(change);
			}
		});
	}

	/**
	 * Tells the server the topics and who asks, unless it knows, one request after the other.
	 * It takes the identity from a stream when the user's password, e-mail or tokens change,
	 * and gives it back on a request with the new token.
	 */
	async function post() {
		while (clientId && !request && !checkViewer()) {
			const id = clientId;
			const { token } = pb.authStore;
			const topics = allTopics();
			const sameTopics = topics.size === sentTopics.size && [...topics].every((topic) => sentTopics.has(topic));
			if (!topics.size || (sameTopics && token === sentToken)) return;
			request = new AbortController();
			askedToken = token;
			clearTimeout(connectTimer);
			connectTimer = setTimer(lost, CONNECT_TIMEOUT);
			let sent = true;
			try {
				await pb.send("/api/realtime", {
					method: "POST", body: { clientId, subscriptions: [...topics] }, requestKey: null, signal: request.signal,
				});
			} catch {
				sent = false;
			}
			request = null;
			if (id !== clientId) continue; // it is another stream by now
			if (!sent) return lost();
			clearTimeout(connectTimer);
			sentTopics = topics;
			sentToken = token;
			heard = performance.now();
			open = true;
			failing = false;
			attempts = 0;
			// PocketBase drops the topics it had first, so an event of any may be missed.
			for (const listener of listeners) if (topics.has(listener.topic)) listener.opened();
		}
	}

	function allTopics() {
		return new Set([...listeners].map((listener) => listener.topic).filter(Boolean));
	}

	return {
		failing: () => failing,
		parked: () => parked,

		/**
		 * Returns what keeps the listener off the stream, and what helps.
		 * @param {Listener} listener
		 */
		obstacle({ collection, filter }) {
			if (!globalThis.EventSource) {
				return "EventSource is missing here: npm install eventsource, and before the query "
					+ 'import { EventSource } from "eventsource"; globalThis.EventSource = EventSource';
			}
			if (bytes(collection + "/*") > TOPIC_BYTES) {
				return `PocketBase takes a topic of at most ${TOPIC_BYTES} bytes: shorten the collection's name`;
			}
			const others = [...listeners].filter((other) => other.collection !== collection || other.filter !== filter);
			if (others.length >= TOPICS && new Set(others.map((other) => other.collection + "?" + other.filter)).size >= TOPICS) {
				return `PocketBase brings the events of at most ${TOPICS} queries: stop others first`;
			}
		},

		/** @param {Listener} listener */
		add(listener) {
			clearTimeout(endTimer);
			listeners.add(listener);
			if (!ticker) return begin();
			if (!clientId) return; // the stream gives it its topic
			listen(listener);
			if (!sentTopics.has(listener.topic)) return post();
			const live = said.get(listener.topic);
			if (live) listener.live(live);
			listener.opened();
		},

		/** @param {Listener} listener */
		remove(listener) {
			if (!listeners.delete(listener)) return;
			// A page that goes on to another query keeps its connection.
			clearTimeout(endTimer);
			endTimer = setTimer(() => (listeners.size ? post() : end()), 1000);
		},
	};
}

/**
 * @param {RecordModel} a
 * @param {RecordModel} b
 */
function same(a, b) {
	return a.updated === b.updated && JSON.stringify(a) === JSON.stringify(b);
}

/** @param {string} topic */
function bytes(topic) {
	return new TextEncoder().encode(topic).length;
}

/**
 * Compares as SQLite does: text by its characters, where JavaScript would go by halves of
 * some of them.
 * @param {any} a
 * @param {any} b
 */
function compareValues(a, b) {
	if (a === b) return 0;
	if (typeof a !== "string" || typeof b !== "string") return a < b ? -1 : 1;
	const [x, y] = [[...a], [...b]];
	const at = x.findIndex((character, i) => character !== y[i]);
	if (at < 0) return -1; // the beginning of the other
	return (x[at].codePointAt(0) ?? 0) < (y[at]?.codePointAt(0) ?? -1) ? -1 : 1;
}

/** @param {number} failures before */
function backoff(failures) {
	return Math.min(RETRY_MIN * 2 ** failures, RETRY_MAX) * jitter();
}

/** Keeps pages that lost a server together from coming back together. */
function jitter() {
	return 0.5 + Math.random();
}

/**
 * @param {() => void} run
 * @param {number} delay
 */
function setTimer(run, delay) {
	return Number(setTimeout(run, Math.max(0, delay)));
}
