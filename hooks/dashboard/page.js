// The page "ModelRiver", made of PocketBase's own components.
import { chart } from "./chart.js";
import { figures, requestFigures } from "./figures.js";
import { health } from "./health.js";
import { callbackList, contentList } from "./lists.js";
import { rejections } from "./rejections.js";
import { failedRequests, openRequests } from "./requests.js";
import { State } from "./state.js";

export function page(route) {
	const state = new State(route.query);
	const { data } = state;
	return t.div(
		{ className: "page modelriver", onmount: () => state.start(), onunmount: () => state.end() },
		t.div(
			{ className: "page-content full-height" },
			t.header(
				{ className: "page-header" },
				t.h1({ className: "breadcrumbs" }, t.span({ className: "breadcrumb-item" }, "ModelRiver")),
				app.components.refreshButton({ onclick: () => state.refresh(true) }),
				t.div({ className: "meta m-l-auto", role: "status" }, status(data)),
			),
			health(state),
			rejections(state),
			figures(state),
			chart(state),
			t.div(
				{ className: "modelriver-lists" },
				t.section(
					null,
					t.header({ className: "flex gap-10 m-b-sm" }, t.h2(null, "Content")),
					() => contentList(data),
				),
				t.section(
					null,
					t.header({ className: "flex gap-10 m-b-sm flex-wrap" }, t.h2(null, "Callbacks"), stateButtons(state), retryAllButton(state)),
					() => callbackList(data, (id) => state.retry(id)),
				),
			),
			() => data.asked ? requests(state) : undefined,
			t.footer({ className: "page-footer" }, app.components.credits()),
		),
	);
}

function requests(state) {
	return t.div(
		null,
		() => requestFigures(state.data.stats),
		t.div({ className: "modelriver-lists" }, openRequests(state), failedRequests(state)),
	);
}

function status(data) {
	return t.span({
		className: () => "label " + (data.error ? "danger" : data.status === "live" && !data.stats?.rejected.count ? "success" : ""),
		textContent: () => data.error || { live: "Live", connecting: "Connecting …", offline: "Offline" }[data.status] || data.status,
	});
}

function stateButtons(state) {
	const { data } = state;
	const states = [["", "All"], ["pending", "Waiting"], ["failed", "Failed"]];
	return t.div(
		{ className: "btns", role: "group", ariaLabel: "Which callbacks to list" },
		...states.map(([value, label]) => t.button({
			type: "button",
			className: () => "btn sm " + (data.state === value ? "" : "secondary transparent"),
			ariaPressed: () => String(data.state === value),
			onclick: () => state.list(value),
		}, label)),
	);
}

function retryAllButton(state) {
	const { data } = state;
	const text = () => {
		if (data.retrying) return `${data.retrying.done} of ${data.retrying.total}`;
		return data.stats?.failed === 1 ? "Retry the failed one" : `Retry all ${data.stats?.failed} failed`;
	};
	const ask = () => app.modals.confirm(
		`Send ${data.stats.failed === 1 ? "the failed callback" : data.stats.failed + " failed callbacks"} again?`,
		() => void state.retryAll(), null, { yesButton: "Send again", noButton: "Cancel" },
	);
	return t.button(
		{
			type: "button",
			hidden: () => !data.stats?.failed && !data.retrying,
			disabled: () => !!data.retrying,
			className: () => "btn sm secondary m-l-auto modelriver-retry-all",
			onclick: ask,
		},
		t.i({ className: "ri-restart-line", ariaHidden: true }),
		t.span({ className: "txt" }, text),
	);
}
