// What the page "ModelRiver" knows, and how that stays true.
import { inAddress } from "./address.js";
import { midnight, parseDate } from "./format.js";
import { liveQuery } from "./live-query.js";
import { Rows } from "./rows.js";
import { inWords } from "./words.js";

/** The requests of each list. */
export const REQUESTS = { open: `state = "queued" || state = "sent"`, failed: `state = "failed"` };

/** Whether there are requests: most apps never ask. */
function isAsked(stats) {
	const { open, failed, answered } = stats?.requests ?? {};
	return !!(open || failed || answered);
}

export class State {
	data = store({
		query: {}, // of the page's address: what the list is to show, and whose drawer is open
		stats: null,
		status: "connecting",
		error: "",
		now: Date.now(), // of what is told as "2 minutes ago"
		asked: false, // there are requests
		requests: { open: [], failed: [] },
		busy: {}, // ids of deliveries that are sent again, and of requests that are asked again or cancelled
		retrying: null, // { done, failed, total } while all are
	});

	rows = new Rows(this);
	alive = true;
	timer = 0;
	loading = false;
	again = false;
	shown = "";
	stop = () => {};

	constructor(query) {
		this.data.query = query;
	}

	start() {
		this.rows.reload();
		this.refresh(true);
		this.clock = setInterval(() => this.data.now = Date.now(), 10_000);
		this.stop = liveQuery(app.pb, "aiContent", { limit: 10 }, ({ status, error }) => {
			this.data.status = status === "failed" ? error.message : status;
			this.refresh();
		});
	}

	end() {
		this.alive = false;
		clearTimeout(this.timer);
		clearInterval(this.clock);
		this.stop();
	}

	/** Asks the server, without cancelling what else asks the same. */
	fetch(path, query = {}) {
		return app.pb.send(path, { query, requestKey: null });
	}

	/** The delivery as it is now, or undefined if there is nothing of it any more. */
	async find({ id, created }) {
		const from = parseDate(created);
		const { items } = await this.fetch("/api/modelriver/deliveries", {
			search: id, from: from.toISOString(), to: new Date(from.getTime() + 1).toISOString(),
		});
		return items.find((item) => item.id === id) ?? await this.findMoved(id);
	}

	/** The delivery of an id that is not where it was: what was refused is dated anew when it is ingested again. */
	async findMoved(id) {
		try {
			return (await this.fetch("/api/modelriver/deliveries/" + encodeURIComponent(id))).delivery;
		} catch (err) {
			if (err.status !== 404) throw err;
		}
	}

	/** Goes to what the query shows: the browser's back button leads here again. */
	go(query) {
		history.pushState({ modelriver: true }, "", "#/modelriver" + inAddress(query));
		this.arrive(query);
	}

	/** Changes the address of where we are. */
	replace(changes) {
		const query = { ...this.data.query, ...changes };
		history.replaceState(history.state, "", "#/modelriver" + inAddress(query));
		this.arrive(query);
	}

	/** Shows what the query says. */
	arrive(query) {
		query = Object.fromEntries(Object.entries(query).filter(([, value]) => value));
		if (JSON.stringify(query) === JSON.stringify(this.data.query)) return;
		this.data.query = query;
		this.rows.reload();
	}

	// Callbacks change by SQL, of which no realtime event tells. So the figures are
	// asked for, often while some wait, and the deliveries when the figures change.
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
			if (!err.isAbort) data.error = inWords(err);
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
		const stats = await this.fetch("/api/modelriver/stats", { since: midnight() });
		const now = JSON.stringify(stats);
		if (now !== JSON.stringify(data.stats)) data.stats = stats;
		if (!force && now === this.shown && !stats.waiting && !stats.requests.open) return;
		const asked = isAsked(stats);
		if (asked) await this.loadRequests();
		data.asked = asked;
		await this.rows.refresh();
		data.now = Date.now();
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
}
