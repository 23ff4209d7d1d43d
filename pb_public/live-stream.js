/**
 * The stream of events of a client's live queries.
 *
 * It is not the SDK's own. That one never retries a failed first connection, and keeps
 * the identity it was opened with: after a sign-out it still brings the old user's
 * events. It could only be renewed by dropping the subscriptions of others.
 *
 * A browser has six connections to a host over HTTP/1.1. So tabs share one, see live-tabs.js,
 * and one that has been hidden for 10 seconds has none: it asks nothing until it is shown
 * again, unless another tab tells it what it hears. One that nobody has seen yet lists once.
 *
 * @module
 */

import { Connection, markOf, topicOf, unconnected } from "./live-connection.js";
import { Tab, tabOf } from "./live-tabs.js";

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("./live-connection.js").Live} Live */
/** @typedef {import("./live-connection.js").State} State */
/** @typedef {import("./live-rows.js").Change} Change */

/**
 * A query as its stream sees it.
 * @typedef {object} Listener
 * @property {string} collection
 * @property {string} [filter]
 * @property {string} topic as it is subscribed now
 * @property {(change: Change) => void} change
 * @property {(says: Live) => void} live the topic's events come
 * @property {(goesOn: boolean) => void} closed they come no more, or from where nobody knows
 * @property {() => void} reset somebody else is signed in
 */

const TICK = 5_000;
const HIDDEN = 10_000;
const UNUSED = 1_000; // a page that goes on to another query keeps its connection

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
	viewer = "";
	/** @type {Connection | Tab | null} */
	line = null;
	state = unconnected; // of the line
	seen = ""; // how far the database of the servers was that this page has heard of, if there are several
	alone = false; // the line may not be shared, for now
	parked = false; // hidden, and without a connection of its own
	posting = false;
	endTimer = 0;
	hideTimer = 0;
	ticker = 0;
	ended = new AbortController();

	/** @param {PocketBase} pb */
	constructor(pb) {
		this.pb = pb;
	}

	/**
	 * How a server is asked, so that no other one answers with less than this page has seen.
	 * @returns {import("pocketbase").SendOptions}
	 */
	get options() {
		const seeing = async (/** @type {RequestInfo | URL} */ url, /** @type {RequestInit | undefined} */ config) => {
			const response = await fetch(url, config);
			this.see(response.headers?.get("Replica-Position"));
			return response;
		};
		return { requestKey: null, headers: this.seen ? { "Replica-Position": this.seen } : {}, fetch: seeing };
	}

	/** @param {string | null | undefined} position */
	see(position) {
		if (position && !reaches(this.seen, position, "-")) this.seen = position;
	}

	/** Whether nothing is to be asked before the events come. */
	get resting() {
		return this.state.waiting || (this.parked && !this.state.id);
	}

	/** @param {Listener} listener */
	add(listener) {
		clearTimeout(this.endTimer);
		this.listeners.add(listener);
		if (!this.ticker) return this.begin();
		if (!this.state.id) return; // the connection gives it its topic
		this.join(listener);
		this.post();
	}

	/** @param {Listener} listener */
	remove(listener) {
		this.listeners.delete(listener);
		clearTimeout(this.endTimer);
		this.endTimer = setTimeout(() => (this.listeners.size ? this.post() : this.end()), UNUSED);
	}

	begin() {
		this.viewer = this.currentViewer();
		this.parked = !!globalThis.document?.hidden;
		this.ticker = setInterval(() => this.tick(), TICK);
		const { signal } = (this.ended = new AbortController());
		signal.addEventListener("abort", this.pb.authStore.onChange(() => this.checkViewer() || this.post()));
		/** @type {(target: EventTarget, type: string, run: () => void) => void} */
		const on = (target, type, run) => target?.addEventListener?.(type, run, { signal });
		on(globalThis, "online", () => this.connect());
		on(globalThis, "offline", () => this.line?.lost());
		on(globalThis, "pagehide", () => {
			this.parked = true;
			this.leave();
		});
		on(globalThis, "pageshow", () => this.turn());
		on(globalThis.document, "visibilitychange", () => this.turn());
		this.connect();
	}

	end() {
		this.ended.abort();
		clearInterval(this.ticker);
		clearTimeout(this.hideTimer);
		this.ticker = 0;
		this.leave();
	}

	/** Gives the connection up if the page stays hidden, and opens it when it is shown. */
	turn() {
		clearTimeout(this.hideTimer);
		if (globalThis.document?.hidden) {
			this.hideTimer = setTimeout(() => this.park(), this.line?.holds ? HIDDEN : 0);
			return;
		}
		if (this.parked) {
			this.parked = false;
			this.connect();
		}
		this.tick();
	}

	park() {
		this.parked = true;
		if (this.line instanceof Tab) this.line.rest();
		else this.leave();
	}

	/** Looks after what no event tells. */
	tick() {
		if (!this.checkViewer()) this.line?.check();
	}

	currentViewer() {
		const { isValid, record, token } = this.pb.authStore;
		return isValid && record ? record.collectionId + "/" + record.id : markOf(token);
	}

	/** Begins anew if somebody else is signed in, or nobody any more. */
	checkViewer() {
		const now = this.currentViewer();
		if (now === this.viewer) return false;
		this.viewer = now;
		this.leave();
		for (const listener of this.listeners) listener.reset();
		this.connect();
		return true;
	}

	connect() {
		if (this.parked) return;
		this.line ??= (!this.alone && tabOf(this)) || new Connection(this, () => this.wanted());
		this.line.connect();
	}

	/** Takes a connection that no other tab has. */
	goAlone() {
		this.leave();
		this.alone = true;
		this.connect();
	}

	leave() {
		this.line?.close();
		this.line = null;
		this.alone = false;
		this.told(unconnected);
	}

	/** Makes known what is wanted, once for all queries that come together. */
	async post() {
		if (this.posting) return;
		this.posting = true;
		await null;
		this.posting = false;
		this.line?.post();
	}

	wanted() {
		return new Set([...this.listeners].map((listener) => listener.topic).filter(Boolean));
	}

	/**
	 * The lists go on with another connection if that one has not asked for topics yet, and goes
	 * on from the event to which this page was told, or from one before: what comes twice says
	 * the same. If the server was asked what a topic's events are worth and did not say it, what
	 * it says next may be for those.
	 * @param {State} state
	 */
	told(state) {
		const { id, topics, said, position } = this.state;
		const goesOn = !state.topics.size && reaches(position, state.position);
		this.line?.share({ state });
		this.state = state;
		if (state.id && state.id === id) return;
		for (const listener of this.listeners) {
			listener.closed(goesOn && (said.has(listener.topic) || !topics.has(listener.topic)));
			if (state.id) this.join(listener);
		}
		this.post();
	}

	/**
	 * Gives the listener its topic on this connection, and what is known of that.
	 * @param {Listener} listener
	 */
	join(listener) {
		listener.topic = topicOf(listener, this.state.tellsLeave);
		const live = this.state.said.get(listener.topic);
		if (live) listener.live({ ...live, continued: false });
	}

	/**
	 * @param {string} topic
	 * @param {any} message a change, what is live, or that the server is alive
	 * @param {string} position
	 */
	hear(topic, message, position) {
		this.line?.share({ id: this.state.id, position, topic, message });
		this.state.position = position;
		this.see(position.split(".")[2]);
		if (message.action === "live") this.state.said.set(topic, message);
		for (const listener of this.listeners) {
			if (listener.topic !== topic) continue;
			if (message.action === "live") listener.live(message);
			else if (message.action !== "alive") listener.change(message);
		}
	}
}

/**
 * Whether who knows all up to one position misses nothing that follows another: it is not before
 * it in the same log, or the same.
 * @param {string} known
 * @param {string} position
 * @param {string} [separator] between the name of the log and the place in it
 */
function reaches(known, position, separator = ".") {
	const [[log, at = 0], [other, from = 0]] = [known.split(separator), position.split(separator)];
	return log === other && +at >= +from;
}
