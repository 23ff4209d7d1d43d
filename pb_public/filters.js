// What the feed can be narrowed to, and how many items that are.
import { $, currentViewer, filter, pb, view } from "./view.js";

const MOST = 200; // values that are offered
const seen = { category: new Set(), event: new Set() };

/** Offers a row's category and event for filtering. */
export function remember({ category, eventName, event = eventName }) {
	for (const [name, value] of [["category", category], ["event", event]]) {
		if (!value || seen[name].has(value) || seen[name].size >= MOST) continue;
		seen[name].add(value);
		const next = [...$(name).options].slice(1).find((option) => option.value > value);
		$(name).add(new Option(value), next ?? null);
	}
}

/** Offers what the viewer's latest rows have, and what is chosen. */
export function offerFilters() {
	for (const name in seen) {
		seen[name].clear();
		$(name).length = 1;
	}
	remember(view);
	const asked = currentViewer();
	pb.collection("aiContent").getList(1, MOST, { fields: "category,eventName", sort: "-created,-id", skipTotal: true, requestKey: null })
		.then(({ items }) => asked === currentViewer() && items.forEach(remember), () => {});
}

/** Shows in the controls what the view has. */
export function showFilters() {
	for (const name of ["q", "category", "event"]) if ($(name).value.trim() !== view[name]) $(name).value = view[name]; // not what is being typed
	$("mine").checked = !!view.mine;
	$("controls").hidden = !!view.channel;
	$("channel").hidden = !view.channel;
	$("channel").querySelector("code").textContent = view.channel;
	$("total").textContent = "";
	counting = null;
}

// The server counts when somebody asks, and only then: a count reads every row.
let counting = null;
$("count").onclick = async () => {
	const mine = (counting = {});
	$("total").textContent = "Counting …";
	let text;
	try {
		const { totalItems } = await pb.collection("aiContent").getList(1, 1, { filter: filter(), fields: "id", requestKey: null });
		text = `${totalItems.toLocaleString()} ${totalItems === 1 ? "item" : "items"} at ${new Date().toLocaleTimeString()}`;
	} catch {
		text = "Not counted. Try again.";
	}
	if (counting === mine) $("total").textContent = text;
};
