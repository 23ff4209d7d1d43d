// The page "ModelRiver", made of PocketBase's own components.
import { queryOf } from "./address.js";
import { chart } from "./chart.js";
import { deliveries } from "./deliveries.js";
import { openDelivery } from "./delivery.js";
import { figures, requestFigures } from "./figures.js";
import { health } from "./health.js";
import { rejections } from "./rejections.js";
import { failedRequests, openRequests } from "./requests.js";
import { State } from "./state.js";

let shown; // the page that is open: other filters do not build it anew

/** The page for the browser's address. */
export function page() {
	const query = queryOf(location.hash);
	if (shown?.element.isConnected) shown.state.arrive(query);
	else shown = build(new State(query));
	return shown.element;
}

function build(state) {
	const { data } = state;
	let drawer;
	const element = t.div(
		{
			className: "page modelriver",
			onmount: () => {
				state.start();
				drawer = followDrawer(state);
				document.addEventListener("click", follow);
				addEventListener("popstate", turn);
			},
			onunmount: () => {
				state.end();
				drawer.unwatch();
				document.removeEventListener("click", follow);
				removeEventListener("popstate", turn);
			},
		},
		t.div(
			{ className: "page-content full-height" },
			t.header(
				{ className: "page-header" },
				t.h1({ className: "breadcrumbs" }, t.span({ className: "breadcrumb-item" }, "ModelRiver")),
				app.components.refreshButton({ onclick: () => state.refresh(true) }),
				t.div({ className: "meta m-l-auto", role: "status" }, status(data)),
			),
			rejections(state),
			health(state),
			figures(state),
			() => data.asked ? requests(state) : undefined,
			chart(state),
			deliveries(state), // the last: it has no end
			t.footer({ className: "page-footer" }, app.components.credits()),
		),
	);
	const follow = (event) => followLink(state, event);
	const turn = () => { // back or forward: the router comes later, and may leave one out that the next overtakes
		if (/^#\/modelriver(\?|$)/.test(location.hash)) state.arrive(queryOf(location.hash));
	};
	return { element, state };
}

/** Follows the links to this page without the router, which fades from page to page. */
function followLink(state, event) {
	const link = event.target.closest?.(`a[href^="#/modelriver"]:not([target])`);
	const isMine = link?.closest(".modelriver, .modelriver-drawer");
	if (!isMine || event.defaultPrevented || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
	event.preventDefault();
	state.go(queryOf(link.getAttribute("href")));
	const list = document.querySelector(".modelriver-deliveries");
	if (list.getBoundingClientRect().top > innerHeight * 0.7) list.scrollIntoView(); // else nothing seems to happen
}

/** Opens and closes the drawer as the address says, and tells the address when it is closed by hand. */
function followDrawer(state) {
	let open;
	let element;
	const closed = (forced) => {
		if (forced && open !== "") return; // another is open by now
		open = "";
		if (forced || !state.data.query.id) return; // by the browser's back button, or by us
		if (history.state?.modelriver) history.back();
		else state.replace({ id: "" });
	};
	return watch(() => state.data.query.id ?? "", (id) => {
		if (id === (open ?? "")) return;
		if (open) app.modals.close(element, true);
		open = id;
		if (id) element = openDelivery(state, id, closed);
	});
}

function requests(state) {
	return t.div(
		null,
		() => requestFigures(state.data.stats),
		t.div({ className: "modelriver-lists" }, openRequests(state), failedRequests(state)),
	);
}

/** How many were rejected today that had a signature: anybody can send others. */
function signedRejected({ today = 0, unsignedToday = 0 } = {}) {
	return today - unsignedToday;
}

function status(data) {
	return t.span({
		className: () => "label " + (data.error ? "danger" : data.status === "live" && !signedRejected(data.stats?.rejected) ? "success" : ""),
		textContent: () => data.error || { live: "Live", connecting: "Connecting …", offline: "Offline" }[data.status] || data.status,
	});
}
