// What the page "ModelRiver" shows, how that stays true, and what its buttons do.
import { isAsked } from "./figures.js";
import { liveQuery } from "./live-query.js";

/** The requests of each list. */
export const REQUESTS = { open: `state = "queued" || state = "sent"`, failed: `state = "failed"` };

export class State {
	data = store({
		stats: null,
		content: [],
		status: "connecting",
		callbacks: null,
		state: "", // of the callbacks to show
		asked: false, // there are requests
		requests: { open: [], failed: [] },
		busy: {}, // ids of callbacks that are retried, and of requests that are asked again or cancelled
		retrying: null, // { done, failed, total } while all are
		error: "",
		query: {}, // of the page's address: what the list shows, and whose drawer is open
	});

	constructor(query = {}) {
		this.data.query = Object.fromEntries(Object.entries(query).map(([name, values]) => [name, values[0]]));
	}

	/** Asks the server, and does not cancel what else asks the same. */
	fetch(path, query = {}) {
		return app.pb.send(path, { query, requestKey: null });
	}

	alive = true;
	timer = 0;
	loading = false;
	again = false;
	shown = "";
	stop = () => {};

	start() {
		this.refresh(true);
		this.stop = liveQuery(app.pb, "aiContent", { limit: 10 }, ({ items, status, error }) => {
			this.data.content = items;
			this.data.status = status === "failed" ? error.message : status;
			this.refresh();
		});
	}

	end() {
		this.alive = false;
		clearTimeout(this.timer);
		this.stop();
	}

	// Callbacks change by SQL, of which no realtime event tells. So the figures are
	// asked for, often while some wait, and the callbacks when the figures change.
	async refresh(force = false) {
		const { data } = this;
		clearTimeout(this.timer);
		const started = Date.now();
		if (!this.alive) return;
		if (this.loading) {
			this.again ||= force;
			return;
		}
		this.loading = true;
		try {
			if (force || !document.hidden) await this.load(force);
			data.error = "";
		} catch (err) {
			if (!err.isAbort) data.error = err.status === 0 ? "The server does not answer. Trying again …" : err.message;
			if (err.status === 401) app.checkApiError(err);
		}
		this.loading = false;
		if (!this.alive) return;
		// A database that takes long to count is asked less often.
		const pause = Math.max(data.stats?.waiting || data.error ? 2000 : 5000, 10 * (Date.now() - started));
		const { again } = this;
		this.timer = setTimeout(() => this.refresh(again), again ? 200 : pause);
		this.again = false;
	}

	async load(force) {
		const { data } = this;
		const midnight = new Date();
		midnight.setHours(0, 0, 0, 0);
		const since = midnight.toISOString();
		const stats = await this.fetch("/api/modelriver/stats", { since });
		if (JSON.stringify(stats) !== JSON.stringify(data.stats)) data.stats = stats;
		const now = JSON.stringify([stats, data.state]);
		const asked = isAsked(stats);
		if (!force && now === this.shown && !stats.waiting && !stats.requests.open) return;
		if (asked) await this.loadRequests();
		data.asked = asked;
		const { state } = data;
		const page = await app.pb.collection("modelriverCallbacks").getList(1, 30, {
			sort: "-created,-id",
			filter: state ? `state = "${state}"` : "",
			expand: "record",
			fields: "id,collectionId,collectionName,record,expand.record.title,payload:excerpt(1),state,attempts,lastStatus,lastError,created,deliveredAt,nextAttempt",
			skipTotal: true,
			requestKey: null,
		});
		if (state !== data.state) return;
		if (JSON.stringify(page.items) !== JSON.stringify(data.callbacks)) data.callbacks = page.items;
		this.shown = now;
	}

	async loadRequests() {
		const { data } = this;
		const latest = (filter) => app.pb.collection("aiRequests").getList(1, 20, {
			filter, sort: "-created,-id", skipTotal: true, requestKey: null,
			fields: "id,workflow,userId,state,attempts,nextAttempt,expires,channelId,error,created",
		});
		const [open, failed] = await Promise.all([latest(REQUESTS.open), latest(REQUESTS.failed)]);
		const requests = { open: open.items, failed: failed.items };
		if (JSON.stringify(requests) !== JSON.stringify(data.requests)) data.requests = requests;
	}

	list(state) {
		this.data.state = state;
		this.refresh(true);
	}

	async retry(id) {
		const { data } = this;
		data.busy = { ...data.busy, [id]: true };
		try {
			await arm(id);
			app.toasts.success("The callback is sent again.");
		} catch (err) {
			app.checkApiError(err);
		}
		data.busy = { ...data.busy, [id]: false };
		this.refresh(true);
	}

	async retryAll() {
		const { data } = this;
		data.retrying = { done: 0, failed: 0, total: data.stats.failed };
		try {
			for (let last = ""; this.alive;) {
				const page = await app.pb.collection("modelriverCallbacks").getList(1, 200, {
					filter: `state = "failed" && id > "${last}"`, sort: "id", fields: "id", skipTotal: true, requestKey: null,
				});
				const ids = page.items.map((row) => row.id);
				if (!ids.length) break;
				last = ids[ids.length - 1];
				await Promise.all([1, 2, 3, 4].map(() => this.retryEach(ids)));
			}
			const { done, failed } = data.retrying;
			if (failed) app.toasts.error(`${failed} callbacks could not be retried.`);
			else app.toasts.success(`${done} callbacks are sent again.`);
		} catch (err) {
			app.checkApiError(err);
		}
		data.retrying = null;
		this.refresh(true);
	}

	/** Ends an open request. The server knows best whether it still is one. */
	cancel(row) {
		return this.changeRequest(row.id, { state: "failed" }, "failed", "The request is cancelled.", "The request was answered meanwhile.");
	}

	/** Asks again, if the request is still what the operator has seen: the server compares that. */
	askAgain({ id, attempts, expires, channelId, error }) {
		const seen = { attempts, expires, channelId, error };
		return this.changeRequest(id, { state: "queued", ...seen }, "queued", "The request is asked again.", "The request has changed meanwhile: it is not asked again.");
	}

	async changeRequest(id, change, want, done, not) {
		const { data } = this;
		data.busy = { ...data.busy, [id]: true };
		try {
			const { state } = await app.pb.collection("aiRequests").update(id, change, { requestKey: null, fields: "state" });
			if (state === want) app.toasts.success(done);
			else app.toasts.info(not);
		} catch (err) {
			app.checkApiError(err);
		}
		data.busy = { ...data.busy, [id]: false };
		this.refresh(true);
	}

	/** Takes ids off the list until there are none, beside others. */
	async retryEach(ids) {
		for (let id; this.alive && (id = ids.shift());) {
			const failed = await arm(id).then(() => 0, () => 1);
			const { done, failed: before, total } = this.data.retrying;
			this.data.retrying = { done: done + 1 - failed, failed: before + failed, total: Math.max(total, done + 1) };
		}
	}
}

function arm(id) {
	return app.pb.collection("modelriverCallbacks").update(id, { state: "pending" }, { requestKey: null, fields: "id" });
}
