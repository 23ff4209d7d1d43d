// The box in which whoever may ask does, and what they have asked: it waits above the feed
// until its answer is there.
import { liveQuery } from "./live-query.js";
import { copier, make } from "./nodes.js";

const WORKFLOW = "story"; // until another one was asked
const SHOWN = 20; // requests without an answer
const $ = (id) => document.getElementById(id);

/**
 * Offers asking to the viewer of now, until it is called again.
 * @param {import("pocketbase").default} pb
 */
export function offerAsking(pb) {
	stop();
	stop = () => {};
	const asker = (viewer = pb.authStore.isValid ? pb.authStore.record?.id : undefined);
	$("ask").hidden = true;
	$("asked").replaceChildren();
	if (!asker) return;
	pb.send("/api/modelriver/asking", { requestKey: null }).then(({ open }) => {
		if (asker !== viewer || !open) return;
		$("ask").hidden = false;
		stop = liveQuery(pb, "aiRequests", { filter: `userId = "${asker}" && state != "answered"`, limit: SHOWN }, ({ items }) => {
			if (asker === viewer) show(pb, items);
		});
	}, () => {}); // without it, the page is the feed
	$("ask").onsubmit = (event) => {
		event.preventDefault();
		send(pb, $("workflow").value.trim(), { messages: [{ role: "user", content: $("question").value.trim() }] })
			.then((sent) => sent && ($("question").value = ""));
	};
}

let stop = () => {};
let viewer;
$("workflow").value = localStorage.getItem("workflow") ?? WORKFLOW;

/** Asks, and returns whether that was taken. */
async function send(pb, workflow, input) {
	const button = $("ask").querySelector("button");
	if (button.disabled) return false; // it is being asked
	button.disabled = true;
	$("ask-refusal").textContent = "";
	try {
		await pb.collection("aiRequests").create({ workflow, input }, { requestKey: null });
		localStorage.setItem("workflow", workflow);
		return true;
	} catch (err) {
		const fields = Object.entries(err.response?.data ?? {}).map(([name, { message }]) => `${name}: ${message}`);
		$("ask-refusal").textContent = err.status === 403 || (err.status === 400 && !fields.length) ? "You may not ask this here."
			: err.status === 429 && /^too many requests\.?$/i.test(err.message) ? "That was too much at once. Try again in a moment."
			: err.status ? [err.message, ...fields].join(" ") : "There is no connection. Try again.";
	} finally {
		button.disabled = false;
	}
}

function show(pb, requests) {
	const old = new Map([...$("asked").children].map((node) => [node.dataset.id, node]));
	$("asked").replaceChildren(...requests.map((request) => {
		const before = old.get(request.id);
		return before?.dataset.updated === request.updated ? before : draw(pb, request);
	}));
}

function draw(pb, request) {
	const { id, workflow, input, state, error, created, updated } = request;
	const failed = state === "failed";
	const text = textOf(input);
	const tools = make("div", { className: "tools" });
	if (failed) {
		tools.append(
			make("button", { type: "button", onclick: async () => await send(pb, workflow, input) && remove(pb, id) }, "Ask again"),
			make("button", { type: "button", onclick: () => remove(pb, id) }, "Dismiss"),
		);
	}
	if (text) tools.append(copier("Copy the question", () => text));
	const time = make("time", { dateTime: new Date(created.replace(" ", "T")).toISOString() }, make("span"));
	const about = make("p", { className: "about" }, make("span", { className: "own" }, "Only for you"), make("span", {}, workflow),
		failed ? "Failed, asked " : "Waiting since ", time);
	const node = make("li", { className: failed ? "failed" : "pending" },
		make("article", {}, make("h2", { className: failed ? "" : "waiting" }, text || workflow), about,
			failed ? make("p", { className: "reason" }, error) : "", tools));
	node.dataset.id = id;
	node.dataset.updated = updated;
	const at = new Date(time.dateTime);
	time.title = at.toString();
	time.firstChild.textContent = at.toLocaleTimeString(undefined, { timeStyle: "short" });
	return node;
}

/** The last thing that a user says in the input. */
function textOf({ messages }) {
	const last = Array.isArray(messages) ? messages.findLast((message) => message?.role === "user") : null;
	return typeof last?.content === "string" ? last.content.slice(0, 300) : "";
}

function remove(pb, id) {
	return pb.collection("aiRequests").delete(id, { requestKey: null }).catch(() => {}); // it is gone, or answered after all
}
