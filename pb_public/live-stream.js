/**
 * The stream of events of a client's live queries.
 *
 * It is not the SDK's own. That one never retries a failed first connection, and keeps
 * the identity it was opened with: after a sign-out it still brings the old user's
 * events. It could only be renewed by dropping the subscriptions of others.
 *
 * A browser has six connections to a host over HTTP/1.1. So tabs share one, see live-tabs.js,
 * and one that has been hidden for 10 seconds has none: it asks nothing until it is shown
 * again, unless another tab tells it everything. One that nobody has seen yet lists once.
 *
 * @module
 */

import { asksForLeave, backoff, bytes, Connection, setTimer, TOPIC_BYTES, topicOf, TOPICS } from "./live-connection.js";
import { markOf, tabOf } from "./live-tabs.js";

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("./live-rows.js").Change} Change */
/** @typedef {import("./live-tabs.js").Tab} Tab */

/**
 * What the server says of a subscription: exact if its events tell of every row that
 * enters or leaves it, by which fields rows can be put in the server's order, and continued
 * if no event was missed since it was last said, on this connection or the one before.
 * @typedef {{ exact: boolean, sortable: string[], continued?: boolean }} Live
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
 * @property {(told: boolean) => void} closed if it was told what the topic's events are worth, when it last asked
 * @property {() => void} reset somebody else is signed in
 */

// Times are milliseconds of performance.now(): nobody sets that clock.
const SIGN_IN = 2_000; // time to do so before what a guest sees is shown
const TICK = 5_000;
const HIDDEN = 10_000;
const UNUSED = 1_000; // a page that goes on to another query keeps its connection
const ASLEEP = 60_000; // a page that long unseen may have a stream that only looks open
const SILENT = 330_000; // PocketBase ends a stream that is idle for 5 minutes: later it is dead
const ALIVE = 60_000; // PocketRiver is heard every 25 seconds

/** @type {WeakMap<PocketBase, Stream>} */
const streams = new WeakMap();

/**
 * Returns the one stream for all live queries of a client.
 * @param {PocketBase} pb
 */
export function streamOf(pb) {
	const stream = streams.get(pb) ?? new Stream(pb);
	streams.set(pb, stream);
	return stream;
}

/** A stream of events, open while somebody listens. */
export class Stream {
	/** @type {Set<Listener>} */
	listeners = new Set();
	failing = false; // the last attempt to open it did
	parked = false; // hidden, and without a stream

	/** @type {Connection | Tab | null} */
	connection = null;
	/** @type {Tab | null} */
	tab = null; // which shares the connection with others
	alone = false; // it may not, for now
	deadToken = ""; // that the server knows no more, while a new one is waited for
	/** @type {string[]} */
	tellsLeave = []; // collections of which the server tells what leaves
	/** @type {Map<string, Live>} */
	said = new Map(); // of the topics' events
	attempts = 0;
	position = ""; // that the last connection had reached
	seen = 0; // when the page was last seen awake, by the clock that goes on while a machine sleeps
	viewer = "";

	retryTimer = 0;
	endTimer = 0;
	ticker = 0;
	hideTimer = 0;
	unbind = () => {};

	/** @param {PocketBase} pb */
	constructor(pb) {
		this.pb = pb;
	}

	/** Whether nothing is to be asked before it is open. */
	get resting() {
		return this.parked || !!this.connection?.waiting;
	}

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
		const others = [...this.listeners].filter((other) => other.collection !== collection || other.filter !== filter);
		if (others.length >= TOPICS && new Set(others.map((other) => other.collection + "?" + other.filter)).size >= TOPICS) {
			return `PocketBase brings the events of at most ${TOPICS} queries: stop others first`;
		}
	}

	/** @param {Listener} listener */
	add(listener) {
		clearTimeout(this.endTimer);
		this.listeners.add(listener);
		if (!this.ticker) return this.begin();
		if (!this.connection?.clientId) return; // the stream gives it its topic
		this.listen(listener);
		this.post();
		const live = this.said.get(listener.topic); // which may come before the server's answer does
		if (live) listener.live({ ...live, continued: false });
		else if (!asksForLeave(listener.topic) && this.connection?.topics.has(listener.topic)) listener.opened();
	}

	/** @param {Listener} listener */
	remove(listener) {
		if (!this.listeners.delete(listener)) return;
		clearTimeout(this.endTimer);
		this.endTimer = setTimer(() => (this.listeners.size ? this.post() : this.end()), UNUSED);
	}

	begin() {
		this.viewer = this.currentViewer();
		this.ticker = Number(setInterval(() => this.tick(), TICK));
		const page = globalThis.document;
		this.parked = !!page?.hidden;
		const connect = () => this.connect();
		/** @type {[EventTarget | undefined, string, (event: any) => void][]} */
		const bindings = [
			[globalThis.window, "online", connect],
			[globalThis.window, "offline", () => this.follows || this.lost()],
			[globalThis.window, "pagehide", () => this.park()],
			[globalThis.window, "pageshow", (event) => event.persisted && this.turn()],
			[page, "resume", connect],
			[page, "visibilitychange", () => this.turn()],
		];
		const unbindAuth = this.pb.authStore.onChange(() => {
			this.alone = false;
			this.checkViewer() || this.recognized() || this.post();
		});
		for (const [target, type, run] of bindings) target?.addEventListener(type, run);
		this.unbind = () => {
			unbindAuth();
			for (const [target, type, run] of bindings) target?.removeEventListener(type, run);
		};
		connect();
	}

	end() {
		this.unbind();
		clearInterval(this.ticker);
		this.unhide();
		this.ticker = this.attempts = 0;
		this.failing = this.parked = false;
		this.leave();
		this.position = "";
	}

	/** Whether another tab has the connection. */
	get follows() {
		return !!this.tab && this.connection === this.tab;
	}

	/** Gives the stream up if the page stays hidden, and opens it when it is shown. */
	turn() {
		if (globalThis.document.hidden) {
			this.tab?.hide();
			this.hide();
			return;
		}
		this.unhide();
		if (this.parked || this.follows) {
			this.parked = false;
			this.connect();
		}
		this.tick();
	}

	hide() {
		if (this.follows) this.unhide(); // the next holder may need a moment
		this.hideTimer ||= setTimer(() => {
			this.hideTimer = 0;
			const told = [...this.listeners].every(({ topic }) => this.said.get(topic)?.exact);
			if (!this.follows || !told) this.park();
		}, HIDDEN);
	}

	unhide() {
		clearTimeout(this.hideTimer);
		this.hideTimer = 0;
	}

	park() {
		this.parked = true;
		this.failing = false;
		this.attempts = 0;
		this.leave();
	}

	/** Looks after what no event tells. */
	tick() {
		if (this.checkViewer()) return;
		if (globalThis.document?.hidden) {
			if (this.follows && this.connection?.silent(ALIVE)) this.park(); // its holder is gone
			return;
		}
		const slept = Date.now() - this.seen > ASLEEP;
		this.seen = Date.now();
		this.tab?.gather();
		if (this.follows && !this.connection?.clientId) this.tab?.seek(); // the holder may hang
		if (this.follows && this.tab?.foreign()) this.goAlone();
		else if (slept || this.connection?.silent(this.said.size ? ALIVE : SILENT)) this.connect();
	}

	currentViewer() {
		const { isValid, record, token } = this.pb.authStore;
		return !isValid ? markOf(token) : record ? record.collectionId + "/" + record.id : markOf(token);
	}

	/** Begins anew if somebody else is signed in, or nobody any more. */
	checkViewer() {
		const now = this.currentViewer();
		if (now === this.viewer) return false;
		this.viewer = now;
		this.leave();
		this.position = "";
		for (const listener of this.listeners) listener.reset();
		this.connect();
		return true;
	}

	connect() {
		this.seen = Date.now();
		if (this.parked || this.tab?.goesOn()) return;
		this.close();
		this.deadToken = "";
		this.tab ??= this.alone ? null : tabOf(this);
		this.connection = this.tab ? this.tab.connect() : new Connection(this.pb, this, this.position);
		if (globalThis.document?.hidden) this.hide();
	}

	/** Takes a connection that no other tab has. */
	goAlone() {
		this.leave();
		this.alone = true;
		this.connect();
	}

	leave() {
		this.close();
		this.tab?.leave();
		this.tab = null;
		this.alone = false;
	}

	close() {
		clearTimeout(this.retryTimer);
		const { connection } = this;
		(this.tab ?? connection)?.close();
		this.position = connection?.position ?? this.position;
		this.connection = null;
		this.said = new Map();
		for (const listener of this.listeners) listener.closed(!connection?.untold.has(listener.topic));
	}

	/** @param {string[]} tellsLeave */
	connected(tellsLeave) {
		this.tellsLeave = tellsLeave;
		for (const listener of this.listeners) this.listen(listener);
		this.post();
	}

	lost() {
		if (this.parked) return;
		this.failing = !this.connection?.open; // an open stream that ends is PocketBase's way
		this.close();
		this.retryTimer = setTimer(() => this.connect(), backoff(this.attempts++));
	}

	/**
	 * Gives the listener its topic on this stream.
	 * @param {Listener} listener
	 */
	listen(listener) {
		listener.topic = topicOf(listener, this.tellsLeave);
		this.connection?.listen(listener.topic);
	}

	/**
	 * @param {string} topic
	 * @param {Change & Live} message
	 */
	hear(topic, message) {
		if (this.checkViewer()) return;
		if (message.action === "unidentified") return this.recognize(); // whoever has asked for the topic
		if (message.action === "live") this.said.set(topic, message);
		for (const listener of this.listeners) {
			if (listener.topic !== topic) continue;
			if (message.action === "live") listener.live(message);
			else if (message.action !== "alive") listener.change(message);
		}
	}

	/**
	 * The server does not know any more who the viewer is: the user's password or tokens have
	 * changed, or the user is gone. Whoever signs in again keeps the rows until then.
	 */
	recognize() {
		const token = this.connection?.toldToken ?? "";
		this.close();
		this.deadToken = token;
		if (!this.recognized()) this.retryTimer = setTimer(() => this.connect(), SIGN_IN);
	}

	/** Goes on at once with a new token. */
	recognized() {
		if (!this.deadToken || this.deadToken === this.pb.authStore.token) return false;
		this.connect();
		return true;
	}

	post() {
		this.tab?.want();
		return this.connection?.post();
	}

	wanted() {
		return new Set([...this.listeners].map((listener) => listener.topic).filter(Boolean));
	}

	/** @param {Set<string>} topics of which the events come from now on */
	opened(topics) {
		this.failing = false;
		this.attempts = 0;
		for (const topic of this.said.keys()) if (!topics.has(topic)) this.said.delete(topic);
		// PocketBase drops the topics it had first, so an event of any may be missed. Of what
		// leaves, the server tells whether it was.
		for (const listener of this.listeners) if (topics.has(listener.topic) && !asksForLeave(listener.topic)) listener.opened();
	}
}
