// The pages that are measured: PocketBase clients of this one process, each with a live
// query, by the module and the SDK that browsers load. It reads commands from stdin, a line
// of JSON each, and answers each with a report.
//
// fetch and EventSource are made from node:http, and do what the two need of them: Node's
// own cost several times as much, on processors that the server needs. As with as many
// browsers, no request waits for another's connection.
import http from "node:http";
import { createInterface } from "node:readline";
import { liveQuery } from "../../pb_public/live-query.js";
import PocketBase from "../../pb_public/vendor/pocketbase.es.mjs";

const OPENING = 200; // pages at the same time
const agent = new http.Agent({ keepAlive: true });

globalThis.fetch = (url, { method, headers, body, signal }) => new Promise((resolve, reject) => {
	const request = http.request(url, { method, headers, signal, agent }, (response) => {
		const parts = [];
		response.on("data", (part) => parts.push(part));
		response.on("error", reject);
		response.on("end", () => resolve({ status: response.statusCode, json: async () => JSON.parse(Buffer.concat(parts).toString()) }));
	});
	request.on("error", reject);
	request.end(body);
});

let streams = 0;

globalThis.EventSource = class {
	listeners = new Map();
	lastEventId = "";
	rest = "";
	closed = false;

	constructor(url) {
		streams++;
		this.request = http.get(url, { agent, headers: { Accept: "text/event-stream" } }, (response) => {
			if (response.statusCode !== 200) return this.fail();
			response.setEncoding("utf8");
			response.on("data", (text) => this.take(text));
			response.on("error", () => {}); // close follows
			response.on("close", () => this.fail());
		});
		this.request.on("error", () => this.fail());
	}

	addEventListener(type, run) {
		this.listeners.set(type, run);
	}

	close() {
		this.closed = true;
		this.request.destroy();
	}

	fail() {
		if (!this.closed) this.onerror();
	}

	take(text) {
		const messages = (this.rest + text).split("\n\n");
		this.rest = messages.pop();
		for (const message of messages) {
			let type = "message", data = "";
			for (const line of message.split("\n")) {
				if (line.startsWith("data:")) data += line.slice(5);
				else if (line.startsWith("event:")) type = line.slice(6);
				else if (line.startsWith("id:")) this.lastEventId = line.slice(3);
			}
			if (data && !this.closed) this.listeners.get(type)?.({ type, data, lastEventId: this.lastEventId });
		}
	}
};

class Page {
	live = false;
	rows = ""; // the ids, and when each was updated
	since = 0; // when it was so first
	right = false;
	lists = 0;
	requests = 0;

	constructor(index, { url, filters, limit }, wasLive) {
		this.index = index;
		const pb = new PocketBase(url);
		pb.beforeSend = (address, options) => {
			this.requests++;
			if (options.method === "GET") this.lists++;
			return { url: address, options };
		};
		liveQuery(pb, "aiContent", { filter: filters[index % filters.length], limit }, ({ items, status, error }) => {
			const rows = items.map((row) => row.id + row.updated).join();
			const live = status === "live";
			this.error = error;
			if (live === this.live && rows === this.rows) return;
			[this.live, this.rows, this.since] = [live, rows, performance.timeOrigin + performance.now()];
			if (live) wasLive();
			judge(this);
		});
	}
}

const pages = [];
let waiting = null; // { wanted, done } until all pages are right

function judge(page) {
	if (!waiting) return;
	const { wanted, done } = waiting;
	const right = page.live && page.rows === wanted[page.index % wanted.length];
	waiting.right += Number(right) - Number(page.right);
	page.right = right;
	if (waiting.right === pages.length) done();
}

/** Resolves when each page's rows are those wanted, or when the time is up. */
function untilRight(wanted, seconds) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, 1000 * seconds);
		waiting = { wanted, right: 0, done: () => (clearTimeout(timer), resolve()) };
		for (const page of pages) page.right = false;
		for (const page of pages) judge(page);
	});
}

function report() {
	const sum = (get) => pages.reduce((all, page) => all + get(page), 0);
	const most = (get) => pages.reduce((all, page) => Math.max(all, get(page)), 0);
	const { user, system } = process.cpuUsage();
	const wrong = pages.find((page) => !page.right);
	return {
		lists: sum((page) => page.lists), mostRequests: most((page) => page.requests), streams,
		cpu: 1000 * (user + system), right: sum((page) => Number(page.right)), since: Math.round(1e6 * most((page) => page.since)),
		wrong: wrong ? `page ${wrong.index} is ${wrong.live ? "live" : "not live"} with ${wrong.rows || "no rows"}, ${wrong.error}` : "",
	};
}

/** Opens the pages, and resolves when all have been live. */
function open(config) {
	return new Promise((resolve) => {
		let left = config.count;
		const next = () => {
			if (pages.length === config.count) return;
			let first = true;
			pages.push(new Page(pages.length, config, () => {
				if (!first) return;
				first = false;
				next();
				if (--left === 0) resolve();
			}));
		};
		for (let i = 0; i < OPENING; i++) next();
	});
}

for await (const line of createInterface({ input: process.stdin })) {
	const { open: config, wanted, seconds, restart } = JSON.parse(line);
	if (config) await open(config);
	if (restart) for (const page of pages) page.requests = 0;
	if (wanted) await untilRight(wanted, seconds);
	process.stdout.write(JSON.stringify(report()) + "\n");
	waiting = null;
}
process.exit(); // their streams would keep it
