/**
 * One connection for the tabs of a browser that have the same server and the same viewer.
 *
 * One tab, the holder, has it. The others, its followers, are told over a BroadcastChannel
 * what it knows and hears. The holder is who has a Web Lock; when its tab is closed, crashes
 * or is hidden, the next one that waits for the lock goes on from the last event that it was
 * told of. What a tab wants is the name of another lock, so that the browser itself knows
 * which topics are wanted at any time, and forgets those of a tab that is gone.
 *
 * @module
 */

import { Connection, markOf, TOPICS, unconnected } from "./live-connection.js";

/** @typedef {import("./live-stream.js").Stream} Stream */

const ANSWER = 5_000; // a holder that takes longer is frozen, or hangs
const WANTS = " wants ";

/**
 * Returns what shares the stream's connection with other tabs, or null where that cannot be
 * done: on plain http, in Node, and where storage is blocked.
 * @param {Stream} owner
 */
export function tabOf(owner) {
	const { isSecureContext, navigator } = globalThis;
	if (!isSecureContext || !navigator.locks) return null;
	try {
		return new Tab(owner);
	} catch {
		return null;
	}
}

/** A stream among those of its browser. It has this for its connection. */
export class Tab {
	holds = false;
	/** @type {(() => void) | null} */
	letGo = null; // of the holder's lock, or of waiting for it
	asked = 0; // when it was first, since the holder answered
	wants = ""; // as others know it
	unwant = () => {};

	/** @param {Stream} owner */
	constructor(owner) {
		this.owner = owner;
		this.real = new Connection(owner, () => this.wanted()); // if it is the holder
		this.name = "pocketriver live 2 " + JSON.stringify([owner.pb.buildURL("/"), owner.viewer]);
		this.channel = new BroadcastChannel(this.name);
		this.channel.onmessage = ({ data }) => this.receive(data);
	}

	connect() {
		this.letGo ??= this.wait({});
		if (this.holds) this.real.connect();
		else this.ask();
	}

	/** Asks the holder for its state, and to look who wants what. */
	ask() {
		this.asked ||= performance.now();
		this.channel.postMessage({ asks: true });
	}

	/** @param {LockOptions} options */
	wait(options) {
		const had = () => {
			this.holds = true;
			this.asked = 0;
			this.real.state = this.owner.state; // where it goes on
			this.real.connect();
		};
		return hold(this.name, options, had, (err) => {
			this.holds = false;
			this.letGo = null;
			this.real.close();
			if (err.name === "AbortError") this.connect(); // it was stolen
			else this.owner.goAlone();
		});
	}

	/** Leaves the connection to others. */
	rest() {
		if (this.holds) this.real.close();
		this.holds = false;
		this.letGo?.();
		this.letGo = null;
	}

	close() {
		this.rest();
		this.unwant();
		this.channel.onmessage = null; // what has arrived may be another viewer's
		this.channel.close();
	}

	lost() {
		if (this.holds) this.real.lost();
	}

	/** Looks after what nobody tells. */
	check() {
		if (this.holds) {
			this.real.check();
			this.real.post(); // not for tabs that are gone
		} else if (this.unserved()) {
			this.owner.goAlone();
		} else if (!this.asked || performance.now() - this.asked < ANSWER) {
			this.ask();
		} else if (this.owner.parked) {
			this.owner.told(unconnected);
		} else {
			this.letGo?.();
			this.letGo = this.wait({ steal: true });
		}
	}

	/** Whether the server knows the holder by another token, which may be dead, or there are too many topics. */
	unserved() {
		const { pb, state: { mark, topics } } = this.owner;
		const full = topics.size === TOPICS && [...this.owner.wanted()].some((topic) => !topics.has(topic));
		return full || (mark && mark !== markOf(pb.authStore.token));
	}

	/** Makes known which topics the stream wants. */
	post() {
		const wants = JSON.stringify([...this.owner.wanted()]);
		if (wants !== this.wants) {
			this.wants = wants;
			const before = this.unwant;
			this.unwant = hold(this.name + WANTS + wants, { mode: "shared" }, () => this.ask());
			before();
		}
		if (this.holds) this.real.post();
	}

	/** @param {any} data */
	receive({ asks, state, id, position, topic, message }) {
		if (this.owner.checkViewer()) return;
		if (this.holds) {
			if (!asks) return;
			this.share({ state: this.owner.state });
			this.real.post();
		} else if (state) {
			this.asked = 0;
			// The next holder may know less than others, who were told more by the one before.
			if (!state.id) state.position = this.owner.state.position;
			this.owner.told(state);
		} else if (topic && id === this.owner.state.id) {
			this.owner.hear(topic, message, position);
		}
	}

	/** The server continues what is in the first request: that of all tabs. */
	async wanted() {
		const { held = [] } = await navigator.locks.query();
		const prefix = this.name + WANTS;
		const all = held.flatMap(({ name = "" }) => (name.startsWith(prefix) ? JSON.parse(name.slice(prefix.length)) : []));
		return [...this.owner.wanted(), ...all];
	}

	/**
	 * Lets the others know what the holder does.
	 * @param {object} data
	 */
	share(data) {
		if (this.holds) this.channel.postMessage(data);
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
