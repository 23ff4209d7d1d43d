/**
 * The connection to PocketBase's realtime. Once it is lost, it is opened again.
 *
 * @module
 */

/**
 * What the server says of a subscription: exact if its events tell of every row that
 * enters or leaves it, by which fields rows can be put in the server's order, and continued
 * if no event was missed since it was last said, on this connection or the one before. Stock
 * PocketBase says nothing: what is then known is that the events come.
 * @typedef {{ exact?: boolean, sortable?: string[], continued?: boolean }} Live
 */

/**
 * What is known of a connection. Tabs that share one tell each other.
 * @typedef {object} State
 * @property {string} id empty while there is none
 * @property {string} position of the last event, in the server's log: the next connection goes on from it
 * @property {string[]} tellsLeave collections of which the server tells what leaves
 * @property {Set<string>} topics that the server was asked for last
 * @property {string} mark of the token with which it was asked
 * @property {Map<string, Live>} said of them since
 * @property {boolean} waiting for its turn, since too many have come at once
 * @property {number} failures since it was last open
 */

/** @typedef {import("./live-stream.js").Stream} Stream */

const CONNECT_TIMEOUT = 15_000;
const ALIVE = 60_000; // PocketRiver is heard every 25 seconds
const SILENT = 330_000; // PocketBase ends a stream that is idle for 5 minutes: later it is dead
const SIGN_IN = 2_000; // time to do so before what a guest sees is shown
const RETRY_MIN = 200;
const RETRY_MAX = 5_000;
export const TOPICS = 1000; // PocketBase refuses all for one more, or for a longer one: lists beyond only look
const TOPIC_BYTES = 2500;

/** @type {State} */
export const unconnected = {
	id: "", position: "", tellsLeave: [], topics: new Set(), mark: "", said: new Map(), waiting: false, failures: 0,
};

export class Connection {
	state = unconnected;
	holds = true; // it is no other's
	token = ""; // with which the server was asked last
	toldToken = ""; // and with which, when it last said something
	deadToken = ""; // that it knows no more, while a new one is waited for
	heard = 0; // when the server was last, or the next step began
	timer = 0; // until the next step, if that is not the server's
	/** @type {EventSource | null} */
	source = null;
	/** @type {AbortController | null} */
	request = null;

	/**
	 * @param {Stream} owner
	 * @param {() => Iterable<string> | Promise<Iterable<string>>} wanted topics, that the server is to bring
	 */
	constructor(owner, wanted) {
		this.owner = owner;
		this.pb = owner.pb;
		this.wanted = wanted;
	}

	/** @param {Partial<State>} changed */
	set(changed) {
		this.state = { ...this.state, ...changed };
		this.heard = Date.now();
		this.owner.told(this.state);
	}

	connect() {
		this.close();
		this.deadToken = "";
		const { position } = this.state;
		const query = new URLSearchParams();
		if (position) query.set("lastEventId", position);
		if (this.owner.seen) query.set("replicaPosition", this.owner.seen);
		this.source = new EventSource(this.pb.buildURL("/api/realtime" + (String(query) && "?" + query)));
		this.source.onerror = () => this.lost();
		this.source.addEventListener("PB_CONNECT", ({ data, lastEventId: id }) => {
			const { live: tellsLeave = [], wait = 0 } = JSON.parse(data);
			const begin = () => this.set({ id, tellsLeave, waiting: false });
			if (!wait) return begin();
			this.set({ waiting: true });
			this.timer = setTimeout(begin, wait);
		});
	}

	/** @param {number} [failures] */
	close(failures = this.state.failures) {
		clearTimeout(this.timer);
		this.source?.close();
		this.request?.abort();
		this.source = this.request = null;
		this.set({ ...unconnected, position: this.state.position, failures });
	}

	lost() {
		this.close(this.state.said.size ? 0 : this.state.failures + 1); // an open one that ends is PocketBase's way
		this.timer = setTimeout(() => this.connect(), backoff(2 * this.state.failures)); // the first is soon; then many may come to one server
	}

	share() {}

	/**
	 * Gives up a server, or a proxy before it, that says nothing. Its clock goes on while a
	 * machine sleeps, and may be set.
	 */
	check() {
		const { topics, said, waiting } = this.state;
		const patience = !topics.size || said.size < topics.size ? CONNECT_TIMEOUT : [...topics].some(asksForLeave) ? ALIVE : SILENT;
		if (this.source && !waiting && Math.abs(Date.now() - this.heard) > patience) this.lost();
	}

	/**
	 * Tells the server the topics and who asks, unless it knows, one request after the other.
	 * It takes the identity from a connection when the user's password, e-mail or tokens
	 * change, and gives it back on a request with the new token.
	 */
	async post() {
		// Who has signed in again goes on at once.
		if (this.deadToken && this.deadToken !== this.pb.authStore.token) this.connect();
		const topics = new Set([...new Set(await this.wanted())].slice(0, TOPICS));
		const { state, pb: { authStore: { token } } } = this;
		if (!state.id || this.request || !topics.size || this.owner.checkViewer()) return;
		if (token === this.token && topics.size === state.topics.size && [...topics].every((topic) => state.topics.has(topic))) return;
		const mine = (this.request = new AbortController());
		for (const topic of topics) this.source?.addEventListener(topic, this.hear); // once, if it does already
		this.token = token;
		this.set({ topics, mark: markOf(token), said: new Map() });
		const sent = await this.pb.send("/api/realtime", {
			method: "POST", body: { clientId: state.id, subscriptions: [...topics] }, signal: mine.signal, ...this.owner.options,
		}).then(() => true, () => false);
		if (this.request !== mine) return;
		this.request = null;
		if (!sent) return this.lost();
		this.set({ failures: 0 });
		// PocketBase drops the topics it had first, so an event of any may be missed. Of what
		// leaves, the server tells whether it was.
		for (const topic of topics) if (!asksForLeave(topic)) this.owner.hear(topic, { action: "live" }, this.state.position);
		this.post(); // what was wanted meanwhile
	}

	hear = (/** @type {MessageEvent} */ { type: topic, data, lastEventId }) => {
		if (this.owner.checkViewer()) return;
		this.heard = Date.now();
		const message = JSON.parse(data);
		if (message.action === "unidentified") return this.recognize();
		if (message.action === "live") this.toldToken = this.token;
		this.owner.hear(topic, message, asksForLeave(topic) ? lastEventId : this.state.position);
	};

	/**
	 * The server does not know any more who the viewer is: the user's password or tokens have
	 * changed, or the user is gone. Whoever signs in again keeps the rows until then.
	 */
	recognize() {
		this.close();
		this.deadToken = this.toldToken;
		this.timer = setTimeout(() => this.connect(), SIGN_IN);
	}
}

/** Why no event can be heard here, or null. */
export function unheard() {
	return globalThis.EventSource ? null : new Error("EventSource is missing: npm install eventsource, set globalThis.EventSource");
}

/**
 * Returns the topic of a query. PocketBase filters the events of a topic, but does not tell
 * what leaves the filter: without that, all events are needed.
 * @param {{ collection: string, filter?: string }} query
 * @param {string[]} tellsLeave collections of which the server tells it
 */
export function topicOf({ collection, filter }, tellsLeave) {
	const all = collection + "/*";
	const topic = all + "?leave=1" + (filter ? "&options=" + encodeURIComponent(JSON.stringify({ query: { filter } })) : "");
	return tellsLeave.includes(collection) && topic.length <= TOPIC_BYTES ? topic : all;
}

/**
 * Whether the server tells what the topic's events are worth, and what leaves it.
 * @param {string} topic
 */
export function asksForLeave(topic) {
	return topic.includes("?leave=1");
}

/**
 * What tells a token from others, and cannot be used as one.
 * @param {string} token
 */
export function markOf(token) {
	return token.slice(-8);
}

/** @param {number} failures before */
export function backoff(failures) {
	return Math.min(RETRY_MIN * 2 ** failures, RETRY_MAX) * jitter();
}

/** Keeps pages that lost a server together from coming back together. */
export function jitter() {
	return 0.5 + Math.random();
}
