import { ask } from "../pb_public/ask.js";

/** @typedef {import("../pb_public/ask.js").Question} Question */

/**
 * @template T
 * @typedef {object} Asked
 * @property {"idle" | "asking" | "answered" | "failed"} status
 * @property {import("pocketbase").RecordModel | null} request the record of aiRequests, once it is created
 * @property {T | null} answer
 * @property {Error | null} error why there is no answer
 * @property {(question: Question) => void} ask asks; the question before it is not waited for any more
 */

/** @type {Omit<Asked<any>, "ask">} */
const idle = { status: "idle", request: null, answer: null, error: null };

/**
 * A store of what was asked last, by whoever is signed in now.
 * @param {import("pocketbase").default} pb
 */
export function askerOf(pb) {
	let tell = () => {};
	/** @type {AbortController | null} */
	let waiting = null;
	const viewer = () => pb.authStore.record?.id;
	let asker = viewer();

	/** @param {Question} question */
	async function begin(question) {
		reset();
		const mine = (waiting = new AbortController());
		/** @param {Partial<Asked<any>>} changed */
		const show = (changed) => {
			if (mine !== waiting) return;
			asked = { ...asked, ...changed };
			tell();
		};
		show({ status: "asking" });
		try {
			show({ answer: await ask(pb, question, { signal: mine.signal, onRequest: (request) => show({ request }) }), status: "answered" });
		} catch (err) {
			show({ error: /** @type {Error} */ (err), status: "failed" });
		}
	}

	function reset() {
		waiting?.abort();
		waiting = null;
		asker = viewer();
		asked = { ...idle, ask: (question) => void begin(question) };
	}

	/** @type {Asked<any>} */
	let asked;
	reset();
	return {
		read: () => asked,
		/** @param {() => void} notify */
		subscribe(notify) {
			tell = notify;
			const unbind = pb.authStore.onChange(() => {
				if (viewer() === asker) return;
				reset();
				tell();
			});
			return () => {
				unbind();
				reset();
			};
		},
	};
}
