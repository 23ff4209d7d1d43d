/**
 * One stream for the tabs of a browser that have the same server and the same viewer.
 *
 * One tab, the holder, has the connection. The others, its followers, are told over a
 * BroadcastChannel what it hears. The holder is who has a Web Lock; when its tab is closed,
 * crashes or is hidden, the next one that waits for the lock goes on from the last event that
 * it was told of. What a tab wants is the name of another lock, so that the browser itself
 * knows which topics are wanted at any time, and forgets those of a tab that is gone.
 *
 * @module
 */

import { Connection, setTimer, TOPICS } from "./live-connection.js";

/** @typedef {import("./live-stream.js").Stream} Stream */
/** @typedef {import("./live-stream.js").Live} Live */

/**
 * What the holder has. It tells all when that changes, and when one asks.
 * @typedef {object} State
 * @property {string} id of the connection, empty while there is none
 * @property {string} position
 * @property {string[]} tellsLeave
 * @property {Set<string>} topics
 * @property {Set<string>} untold
 * @property {Map<string, Live>} said
 * @property {string} mark of the token
 * @property {boolean} failing
 * @property {boolean} waiting for its turn
 * @property {boolean} full there are more topics than a connection may have
 * @property {boolean} [opened] the topics' events come from now on
 * @property {string} [ended] the connection that there is no more
 */

const ANSWER = 5_000; // a holder that takes longer is frozen, or hangs
const WANTS = " wants ";

/**
 * Returns what shares the stream's connection with other tabs, or null where that cannot be
 * done: on plain http, in Node, and where storage is blocked.
 * @param {Stream} owner
 */
export function tabOf(owner) {
	const { isSecureContext, navigator, BroadcastChannel } = globalThis;
	if (!isSecureContext || !navigator?.locks || !BroadcastChannel) return null;
	try {
		return new Tab(owner);
	} catch {
		return null;
	}
}

/** A stream among those of its browser. A follower's stream has it for its connection. */
export class Tab {
	clientId = ""; // of the connection that it follows
	position = "";
	/** @type {Set<string>} */
	topics = new Set();
	/** @type {Set<string>} */
	untold = new Set();
	mark = "";
	waiting = false;
	heard = 0;
	timer = 0;

	holds = false;
	/** @type {(() => void) | null} */
	letGo = null; // of the holder's lock, or of waiting for it
	/** @type {Connection | null} */
	real = null;
	/** @type {string[] | null} */
	others = null; // topics that tabs want, once that is known for this connection
	full = false;

	known = ""; // what it wants, as others know it
	wanting = false;
	unwant = () => {};

	/** @param {Stream} owner */
	constructor(owner) {
		this.owner = owner;
		this.name = "pocketriver live 1 " + JSON.stringify([new URL(owner.pb.buildURL("/")).href, owner.viewer]);
		this.channel = new BroadcastChannel(this.name);
		this.channel.onmessage = ({ data }) => this.receive(data);
	}

	get open() {
		return !!this.clientId && this.topics.size > 0;
	}

	/** Returns what the stream is to have for its connection. */
	connect() {
		this.position = this.owner.position;
		if (this.holds) return (this.real = new Connection(this.owner.pb, this, this.position));
		this.seek();
		return this;
	}

	/** Whether it is told by a holder. If that one does not answer any more, it takes its place. */
	goesOn() {
		if (this.holds || !this.clientId) return false;
		this.seek();
		return true;
	}

	/** Asks for the holder. Who is seen waits to be the next. */
	seek() {
		const seen = !globalThis.document?.hidden;
		if (seen) this.letGo ??= this.wait({});
		this.channel.postMessage({ asks: true, seen });
		this.timer ||= setTimer(() => this.steal(), ANSWER); // another question gives no more time
	}

	answered() {
		clearTimeout(this.timer);
		this.timer = 0;
	}

	steal() {
		this.timer = 0;
		if (globalThis.document?.hidden) return;
		this.letGo?.();
		this.letGo = this.wait({ steal: true });
	}

	/** @param {LockOptions} options */
	wait(options) {
		const had = () => {
			this.holds = true;
			this.owner.connect();
			this.tell();
		};
		return hold(this.name, options, had, (err) => {
			this.holds = false;
			this.letGo = null;
			if (err.name === "AbortError") this.owner.connect(); // it was stolen
			else this.owner.goAlone();
		});
	}

	/** Gives the stream to a tab that is seen: a page that is hidden may be suspended at once. */
	async hide() {
		if (!this.holds) return this.step();
		const { pending = [] } = await navigator.locks.query();
		if (globalThis.document.hidden && pending.some(({ name }) => name === this.name)) this.handOver();
	}

	handOver() {
		if (!this.holds) return;
		this.owner.close();
		this.step();
		this.owner.connect();
	}

	/** Holds and waits no more. */
	step() {
		this.holds = false;
		this.letGo?.();
		this.letGo = null;
	}

	/** Ends the connection for all, or its being told. */
	close() {
		this.answered();
		this.clientId = "";
		const ended = this.real?.clientId;
		this.real?.close();
		if (this.real) this.tell({ ended });
		this.real = null;
	}

	leave() {
		// The others may drop its topics from a connection and take them up again later.
		if (!this.holds) this.owner.position = "";
		this.step();
		this.unwant();
		this.channel.close();
	}

	/** Makes known which topics the stream wants, once for all queries that come together. */
	async want() {
		if (this.wanting) return;
		this.wanting = true;
		await null;
		this.wanting = false;
		const topics = JSON.stringify([...this.owner.wanted()]);
		if (topics === this.known || this.owner.tab !== this) return;
		this.known = topics;
		const before = this.unwant;
		const now = hold(this.name + WANTS + topics, { mode: "shared" }, () => {
			before();
			if (this.unwant === both) this.unwant = now;
			this.channel.postMessage({ wants: true });
		});
		const both = () => (before(), now());
		this.unwant = both;
	}

	/** Asks the browser what its tabs want. */
	async gather() {
		if (!this.real) return;
		const { held = [] } = await navigator.locks.query();
		if (!this.real) return;
		const prefix = this.name + WANTS;
		this.others = held.flatMap(({ name = "" }) => (name.startsWith(prefix) ? JSON.parse(name.slice(prefix.length)) : []));
		this.real.post();
		if (this.full) this.tell();
	}

	/** @param {any} data */
	receive(data) {
		if (this.owner.tab !== this || this.owner.checkViewer()) return;
		if (this.holds) {
			if (data.wants) this.gather();
			else if (data.seen && globalThis.document?.hidden) this.handOver();
			else if (data.asks) this.tell();
		} else if (data.topics) {
			this.follow(data);
		} else if (data.topic && data.id === this.clientId) {
			this.heard = performance.now();
			this.position = data.position;
			if (data.message.action === "live") this.untold.delete(data.topic);
			this.owner.hear(data.topic, data.message);
		}
	}

	/** @param {State} state */
	follow(state) {
		const { owner } = this;
		if ("ended" in state && state.ended !== this.clientId) return;
		this.answered();
		this.heard = performance.now();
		owner.failing = state.failing;
		if (this.waiting && !state.waiting && !state.id) for (const listener of owner.listeners) listener.closed(true);
		this.waiting = state.waiting;
		const comes = state.id !== this.clientId;
		if (comes) this.change(state);
		if (!state.id) return;
		({ topics: this.topics, untold: this.untold, mark: this.mark } = state);
		if (comes) {
			owner.connected(state.tellsLeave);
			for (const [topic, live] of state.said) owner.hear(topic, /** @type {any} */ ({ ...live, continued: false }));
		}
		if (this.open && (comes || state.opened)) owner.opened(this.topics);
		if (state.full && this.open && [...owner.wanted()].some((topic) => !this.topics.has(topic))) owner.goAlone();
	}

	/**
	 * Goes over to another connection, or to none. The lists go on if that one is new and goes
	 * on from the event to which this tab was told, or from one before: what comes twice says the
	 * same. The next holder may have its lock before it was told what others know already.
	 * @param {State} state
	 */
	change({ id, topics, position }) {
		const whole = !topics.size && reaches(this.position, position);
		const followed = this.clientId;
		this.clientId = "";
		if (followed) this.owner.connect();
		this.clientId = id;
		if (!id) return;
		this.position = position;
		if (!whole) for (const listener of this.owner.listeners) listener.closed(false);
	}

	/** @param {Partial<State>} [more] */
	tell(more) {
		const { real, full, owner: { tellsLeave, said, failing } } = this;
		const { clientId: id = "", position = "", topics = new Set(), untold = topics, askedToken: token = "", waiting = false } = real ?? {};
		this.channel.postMessage({ id, position, tellsLeave, topics, untold, said, mark: markOf(token), failing, waiting, full, ...more });
	}

	// What a stream has of a connection.

	toldToken = "";

	listen() {}

	post() {}

	/** @param {number} time */
	silent(time) {
		return this.open && performance.now() - this.heard > time;
	}

	/** Whether the server knows the holder by another token, which may be dead. */
	foreign() {
		return this.open && this.mark !== markOf(this.owner.pb.authStore.token);
	}

	// What a connection has of its owner.

	asks = () => this.tell();
	lost = () => this.owner.lost();
	checkViewer = () => this.owner.checkViewer();

	/** @param {string[]} tellsLeave */
	connected(tellsLeave) {
		this.others = null;
		this.owner.connected(tellsLeave);
		if (this.real) this.tell();
		this.gather();
	}

	/** The server continues topics that are in the first request: it waits until all are known. */
	wanted() {
		const { real, others } = this;
		if (!real || !others) return new Set();
		const all = [...new Set([...this.owner.wanted(), ...others.filter((topic) => real.topics.has(topic)), ...others])];
		this.full = all.length > TOPICS;
		for (const topic of all) real.listen(topic);
		return new Set(all.slice(0, TOPICS));
	}

	/** @param {Set<string>} topics */
	opened(topics) {
		this.owner.opened(topics);
		this.tell({ opened: true });
	}

	/**
	 * @param {string} topic
	 * @param {any} message
	 */
	hear(topic, message) {
		const { real } = this;
		// The holder ends the connection of somebody who is not identified any more, for all.
		if (real && message.action !== "unidentified") {
			this.channel.postMessage({ id: real.clientId, position: real.position, topic, message });
		}
		this.owner.hear(topic, message);
	}
}

/**
 * Takes a lock when it is free, and keeps it until the returned function is called.
 * @param {string} name
 * @param {LockOptions} options
 * @param {() => void} had
 * @param {(err: Error) => void} [lost] it was stolen, or cannot be had
 */
function hold(name, options, had, lost = () => {}) {
	const end = new AbortController();
	const { signal } = end;
	const ended = new Promise((resolve) => signal.addEventListener("abort", resolve));
	const granted = () => {
		if (signal.aborted) return;
		had();
		return ended;
	};
	navigator.locks.request(name, options.steal ? options : { ...options, signal }, granted).catch((err) => signal.aborted || lost(err));
	return () => end.abort();
}

/**
 * Whether who knows all up to one position misses nothing that follows another: it is not before
 * it in the same log, or the same.
 * @param {string} known
 * @param {string} position
 */
function reaches(known, position) {
	const [[log, at], [other, from]] = [known.split("."), position.split(".")];
	return known === position || (log === other && Number(at) >= Number(from));
}

/**
 * What tells a token from others, and cannot be used as one.
 * @param {string} token
 */
export function markOf(token) {
	return token.slice(-8);
}
