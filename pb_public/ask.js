/**
 * Asks ModelRiver through PocketRiver, which has the key, and waits for the answer.
 *
 *     const answer = await ask(pb, { workflow: "story", input: { messages: [{ role: "user", content: "A lighthouse" }] } });
 *
 * It needs the files of live-query.js beside it.
 *
 * @module
 */

import { unheard } from "./live-connection.js";
import { liveQuery } from "./live-query.js";
import { streamOf } from "./live-stream.js";

/** @typedef {import("pocketbase").default} PocketBase */
/** @typedef {import("pocketbase").RecordModel} RecordModel */

/**
 * @typedef {object} Question
 * @property {string} workflow its name in ModelRiver
 * @property {Record<string, any>} input what the workflow takes, as messages
 */

/**
 * @typedef {object} Waiting
 * @property {number} [timeout] milliseconds until it is not waited for any more, by default 5 minutes
 * @property {AbortSignal} [signal] ends the waiting
 * @property {(request: RecordModel) => void} [onRequest] is called with the record of aiRequests when it is created, and whenever it changes
 */

const TIMEOUT = 300_000;
const LONGEST = 2 ** 31 - 1; // that a timer can be

/** Why there is no answer. What was asked may be answered later all the same, unless it failed. */
export class AskError extends Error {
	/**
	 * @param {string} message
	 * @param {RecordModel} request of the collection aiRequests, as it was known last
	 */
	constructor(message, request) {
		super(message);
		this.name = "AskError";
		this.request = request;
	}
}

/**
 * Creates a request and resolves with the record of aiContent that answers it. Who is not
 * signed in can't see a request, and so can't wait for one.
 *
 * It rejects with PocketBase's ClientResponseError if the request is refused, with an
 * AskError if it failed or was not answered in time, and with the signal's reason.
 *
 * @template [T=RecordModel]
 * @param {PocketBase} pb
 * @param {Question} question
 * @param {Waiting} [waiting]
 * @returns {Promise<T>}
 */
export async function ask(pb, { workflow, input }, { timeout = TIMEOUT, signal, onRequest = () => {} } = {}) {
	signal?.throwIfAborted();
	const error = unheard();
	if (error) throw error; // before anything is paid for
	const ended = performance.now() + timeout;
	const created = await pb.collection("aiRequests").create({ workflow, input }, { ...streamOf(pb).options, signal }).catch((err) => {
		signal?.throwIfAborted();
		throw err;
	});
	signal?.throwIfAborted();
	onRequest(created);
	signal?.throwIfAborted();
	return /** @type {Promise<any>} */ (follow(pb, created, { timeout: ended - performance.now(), signal, onRequest }));
}

/**
 * Resolves with the answer. It comes in one list with the request, which is tried again if it fails.
 *
 * @param {PocketBase} pb
 * @param {RecordModel} request
 * @param {Required<Pick<Waiting, "timeout" | "onRequest">> & Waiting} waiting
 * @returns {Promise<RecordModel>}
 */
function follow(pb, request, { timeout, signal, onRequest }) {
	return new Promise((resolve, reject) => {
		const give = (/** @type {string} */ up) => end(() => reject(new AskError(up, request)));
		const stop = liveQuery(pb, "aiRequests", { filter: `id = "${request.id}"`, expand: "record", limit: 1 }, ({ items: [now], status, error }) => {
			if (status === "failed") return end(() => reject(error));
			if (!now) return void (status === "live" && give("The request is not there any more, or another user is signed in."));
			const changed = now.updated !== request.updated || now.state !== request.state;
			request = now;
			const answer = now.expand?.record;
			if (answer) end(() => resolve(answer));
			else if (now.state === "answered") give("The answer is not there any more.");
			else if (now.state === "failed") give(now.error);
			if (changed) onRequest(now); // which may fail
		});
		const timer = setTimeout(() => give("No answer came in time. It may still come."), Math.min(timeout, LONGEST));
		const abort = () => end(() => reject(signal?.reason));
		signal?.addEventListener("abort", abort);
		/** @param {() => void} settle */
		function end(settle) {
			clearTimeout(timer);
			signal?.removeEventListener("abort", abort);
			stop();
			settle();
		}
	});
}
