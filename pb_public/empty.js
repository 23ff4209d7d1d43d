// What the page says where the list is empty.
import { copier, make } from "./nodes.js";
import { $, filter, pb, view } from "./view.js";

/** Says why there is nothing, and what to do, if the list is empty. */
export function showEmpty(empty) {
	const section = $("empty");
	const kind = !empty ? "" : view.channel ? "channel" : filter() ? "filter" : pb.authStore.isValid ? "none" : "guest";
	if (section.dataset.kind === kind) return;
	section.dataset.kind = kind;
	section.hidden = !empty;
	section.replaceChildren(...kind ? says[kind]() : []);
}

const text = (...parts) => make("p", {}, ...parts);

function tryOut() {
	const address = new URL("webhooks/modelriver", pb.baseURL).href;
	const command = "./pocketriver modelriver send" + (location.host === "127.0.0.1:8090" ? "" : ` --url ${address}`);
	return [
		text("Try it out: send a sample, as ModelRiver would, with the server's MODELRIVER_WEBHOOK_SECRET in the environment."),
		make("pre", {}, make("code", {}, command)),
		copier("Copy the command", () => command),
		text("It appears here at once. For real content, give ModelRiver this webhook address: ", make("code", {}, address)),
		text("What arrived, and what failed, is in the ", make("a", { href: "./_/#/modelriver" }, "dashboard"), "."),
	];
}

const says = {
	none: () => [make("h2", {}, "Nothing has arrived yet"), ...tryOut()],
	guest: () => [make("h2", {}, "Nothing public has arrived yet"), ...tryOut()],
	filter: () => [
		make("h2", {}, "Nothing matches"),
		make("button", { type: "button", "data-narrow": "" }, "Show everything"),
	],
	channel: () => [
		make("h2", { className: "waiting" }, "Waiting for the result"),
		text("It appears here the moment it lands. Leave this page open."),
	],
};
