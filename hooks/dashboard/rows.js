// The deliveries on the page "ModelRiver", how they are loaded and how they stay true.
import { FILTERS } from "./address.js";
import { inWords } from "./words.js";

const PAGE = 30;
const MOST = 200; // that the server gives at once
const READING = 10_000; // since the pointer moved
const ALONE = 20; // pages without a delivery that are looked at without being told to

export class Rows {
	data = store({
		ids: [], // of the rows on the page, in their order
		changes: {}, // how often the row of each id changed
		next: "",
		searchedTo: "",
		loaded: false,
		loading: false,
		error: "",
		newer: 0, // rows that are not shown yet, because someone reads
	});

	byId = new Map();
	turn = 0; // changes with what is listed
	pointed = 0; // when the pointer last moved over the rows
	latest = null; // the page that has the newer ones
	alone = 0;
	filter = null;

	constructor(state) {
		this.state = state;
	}

	/** The filters of the page's address. */
	filters() {
		const { query } = this.state.data;
		return Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));
	}

	/** Loads the list, if it is not the one that is shown. */
	async reload(force = false) {
		const filter = JSON.stringify(this.filters());
		if (!force && filter === this.filter) return;
		this.filter = filter;
		this.alone = 0;
		const turn = ++this.turn;
		Object.assign(this.data, { loading: true, loaded: false, error: "", newer: 0 });
		await this.fetch(turn, { limit: PAGE }, (page) => {
			this.show(page.items);
			Object.assign(this.data, { loaded: true, next: page.next, searchedTo: page.searchedTo });
		});
	}

	/** Loads what is older. */
	async more(told) {
		const { data } = this;
		if (data.loading || !data.next) return;
		if (told) this.alone = 0;
		else if (data.error || this.alone >= ALONE) return;
		data.loading = true;
		data.error = "";
		await this.fetch(this.turn, { limit: PAGE, after: data.next }, (page) => {
			this.alone = page.items.length ? 0 : this.alone + 1;
			this.show([...this.all(), ...page.items]);
			Object.assign(data, { next: page.next, searchedTo: page.searchedTo });
		});
	}

	async fetch(turn, query, then) {
		const { data } = this;
		try {
			const page = await this.state.fetch("/api/modelriver/deliveries", { ...this.filters(), ...query });
			if (turn === this.turn) then(page);
		} catch (err) {
			if (turn === this.turn && !err.isAbort) data.error = inWords(err);
		}
		if (turn === this.turn) data.loading = false;
	}

	/** Brings the rows up to date. */
	async refresh() {
		const { data, turn } = this;
		if (!data.loaded) return data.loading ? undefined : this.reload(true);
		const limit = Math.min(Math.max(data.ids.length, PAGE), MOST);
		const page = await this.state.fetch("/api/modelriver/deliveries", { ...this.filters(), limit });
		if (turn !== this.turn) return;
		const have = new Set(page.items.map((row) => row.id));
		const rest = this.all().filter((row) => !have.has(row.id));
		const older = rest.filter((row) => isOlder(row, page));
		this.latest = page;
		if (!this.isRead()) return this.showLatest(older);
		const shown = new Set(data.ids);
		this.show(this.all().map((row) => page.items.find(({ id }) => id === row.id) ?? row));
		data.newer = page.items.filter(({ id }) => !shown.has(id)).length;
		await this.lookUp(turn, rest.filter(({ id }) => isOnScreen(id)).slice(0, 20));
	}

	/** Shows the newest rows, and those that are older than what was asked for. */
	showLatest(older) {
		const { data, latest: page } = this;
		older ??= this.all().filter((row) => isOlder(row, page));
		if (page.items.length >= MOST) older = []; // and begins anew from there, before the page grows without end
		this.show([...page.items, ...older]);
		data.newer = 0;
		if (!older.length) Object.assign(data, { next: page.next, searchedTo: page.searchedTo });
	}

	/** Finds out what became of rows that the server did not list: they left the filter, or are far down. */
	async lookUp(turn, rows) {
		const now = await Promise.all(rows.map((row) => this.state.find(row)));
		if (turn === this.turn) rows.forEach((row, i) => this.keep(now[i] ?? { ...row, state: "deleted", record: "" }));
	}

	/** Whether someone reads the rows, so that they must stay where they are. */
	isRead() {
		const list = document.querySelector(".modelriver-deliveries .list");
		const page = list?.closest(".page-content");
		if (!list || !this.data.ids.length) return false;
		const isAbove = list.getBoundingClientRect().top < page.getBoundingClientRect().top;
		return isAbove || Date.now() - this.pointed < READING && list.matches(":hover") || !!list.querySelector(":focus-visible");
	}

	/** The row of the id. Who asks is told when it changes. */
	row(id) {
		void this.data.changes[id];
		return this.byId.get(id);
	}

	all() {
		return this.data.ids.map((id) => this.byId.get(id));
	}

	show(rows) {
		const { data } = this;
		for (const row of rows) this.keep(row);
		const ids = [...new Set(rows.map(({ id }) => id))];
		if (ids.join() !== data.ids.join()) data.ids = ids;
	}

	keep(row) {
		const { byId, data } = this;
		if (JSON.stringify(byId.get(row.id)) === JSON.stringify(row)) return;
		byId.set(row.id, row);
		data.changes[row.id] = (data.changes[row.id] ?? 0) + 1;
	}
}

/** Whether the row is older than all that the server looked at for the page. */
function isOlder(row, { items, next, searchedTo }) {
	if (!next) return false;
	const last = items[items.length - 1];
	if (searchedTo) return row.created < searchedTo;
	return row.created < last.created || row.created === last.created && row.id < last.id;
}

function isOnScreen(id) {
	const rect = document.querySelector(`.modelriver-delivery[data-id="${id}"]`)?.getBoundingClientRect();
	return !!rect && rect.bottom > 0 && rect.top < innerHeight;
}
