/**
 * One connection to PocketBase's realtime, from its opening to its end.
 *
 * @module
 */

/** @typedef {import("pocketbase").default} PocketBase */

/**
 * Who has a connection. It hears nothing of one that it has closed.
 * @typedef {object} Owner
 * @property {(tellsLeave: string[]) => void} connected with the collections of which the server tells what leaves
 * @property {() => Set<string>} wanted topics, that the server is to bring
 * @property {() => void} [asks] the server is asked now, for what is untold, or in a moment
 * @property {(topics: Set<string>) => void} opened the events of these come from now on
 * @property {(topic: string, message: any) => void} hear
 * @property {() => void} lost
 * @property {() => boolean} checkViewer whether somebody else is signed in, and all begins anew
 */

const CONNECT_TIMEOUT = 15_000;
const RETRY_MIN = 200;
const RETRY_MAX = 5_000;
export const TOPICS = 1000; // PocketBase refuses all for one more, or for a longer one
export const TOPIC_BYTES = 2500;

export class Connection {
	clientId = "";
	waiting = false; // for its turn, since too many have come at once
	open = false;
	/** @type {Set<string>} */
	topics = new Set(); // that the server brings
	token = ""; // and for whom
	askedToken = ""; // of the last request for that
	toldToken = ""; // of the one that the server has told of
	/** @type {Set<string>} */
	listening = new Set(); // topics
	/** @type {AbortController | null} */
	request = null;
	heard = 0; // when the server was last
	/** @type {Set<string>} */
	untold = new Set(); // topics of which the server is to tell what is live

	/**
	 * @param {PocketBase} pb
	 * @param {Owner} owner
	 * @param {string} position of the connection before, which this one goes on from
	 */
	constructor(pb, owner, position) {
		this.pb = pb;
		this.owner = owner;
		this.position = position; // of the last event, in the server's log
		this.timer = setTimer(() => owner.lost(), CONNECT_TIMEOUT);
		this.source = new EventSource(pb.buildURL("/api/realtime" + (position && "?lastEventId=" + encodeURIComponent(position))));
		this.source.onerror = () => owner.lost();
		this.source.addEventListener("PB_CONNECT", (event) => {
			const { live = [], wait = 0 } = JSON.parse(event.data);
			const begin = () => {
				this.waiting = false;
				this.clientId = event.lastEventId;
				owner.connected(live);
			};
			if (!wait) return begin();
			this.waiting = true;
			owner.asks?.();
			clearTimeout(this.timer);
			this.timer = setTimer(begin, wait);
		});
	}

	close() {
		clearTimeout(this.timer);
		this.source.close();
		this.request?.abort();
		this.clientId = "";
		this.open = this.waiting = false;
	}

	/** @param {number} time without a word of the server, in milliseconds */
	silent(time) {
		return this.open && performance.now() - this.heard > time;
	}

	/** @param {string} topic */
	listen(topic) {
		if (this.listening.has(topic)) return;
		this.listening.add(topic);
		this.source.addEventListener(topic, (event) => {
			this.heard = performance.now();
			if (asksForLeave(topic)) this.position = event.lastEventId;
			const message = JSON.parse(event.data);
			if (message.action === "live") {
				this.toldToken = this.askedToken;
				this.untold.delete(topic);
				this.ready();
			}
			this.owner.hear(topic, message);
		});
	}

	/**
	 * Tells the server the topics and who asks, unless it knows, one request after the other.
	 * It takes the identity from a connection when the user's password, e-mail or tokens
	 * change, and gives it back on a request with the new token.
	 */
	async post() {
		while (this.clientId && !this.request && !this.owner.checkViewer()) {
			const { token } = this.pb.authStore;
			const topics = this.owner.wanted();
			const sameTopics = topics.size === this.topics.size && [...topics].every((topic) => this.topics.has(topic));
			if (!topics.size || (sameTopics && token === this.token)) return;
			this.askedToken = token;
			this.untold = new Set([...topics].filter(asksForLeave));
			this.owner.asks?.();
			clearTimeout(this.timer);
			this.timer = setTimer(() => this.owner.lost(), CONNECT_TIMEOUT);
			const sent = await this.send({ clientId: this.clientId, subscriptions: [...topics] });
			if (!this.clientId) return;
			if (!sent) return this.owner.lost();
			this.topics = topics;
			this.token = token;
			this.heard = performance.now();
			this.open = true;
			this.ready();
			this.owner.opened(topics);
		}
	}

	/** Waits no longer for a server, or a proxy before it, that says nothing. */
	ready() {
		if (this.open && !this.request && !this.untold.size) clearTimeout(this.timer);
	}

	/** @param {object} body */
	async send(body) {
		this.request = new AbortController();
		const sent = await this.pb.send("/api/realtime", { method: "POST", body, requestKey: null, signal: this.request.signal })
			.then(() => true, () => false);
		this.request = null;
		return sent;
	}
}

/**
 * Returns the topic of a query. PocketBase filters the events of a topic, but does not tell
 * what leaves the filter: without that, all events are needed.
 * @param {{ collection: string, filter?: string }} query
 * @param {string[]} tellsLeave collections of which the server tells it
 */
export function topicOf({ collection, filter }, tellsLeave) {
	const all = collection + "/*";
	const options = filter ? "&options=" + encodeURIComponent(JSON.stringify({ query: { filter } })) : "";
	const topic = all + "?leave=1" + options;
	return tellsLeave.includes(collection) && bytes(topic) <= TOPIC_BYTES ? topic : all;
}

/** @param {string} topic */
export function bytes(topic) {
	return new TextEncoder().encode(topic).length;
}

/**
 * Whether the server tells what the topic's events are worth, and what leaves it.
 * @param {string} topic
 */
export function asksForLeave(topic) {
	return topic.includes("?leave=1");
}

/** @param {number} failures before */
export function backoff(failures) {
	return Math.min(RETRY_MIN * 2 ** failures, RETRY_MAX) * jitter();
}

/** Keeps pages that lost a server together from coming back together. */
export function jitter() {
	return 0.5 + Math.random();
}

/**
 * @param {() => void} run
 * @param {number} delay
 */
export function setTimer(run, delay) {
	return Number(setTimeout(run, Math.max(0, delay)));
}
