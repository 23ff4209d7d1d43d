// What the list of deliveries is filtered by: the query of the page's address.
import { isFiltered } from "./address.js";

const STATES = [["", "All"], ["waiting", "Waiting"], ["delivered", "Delivered"], ["failed", "Failed"], ["refused", "Refused"]];
const TEXTS = { event: ["Event", "event"], category: ["Category", "category"], user: ["User", "userId"] };
const DATES = { from: "From", to: "Until" };
const TYPING = 300; // ms until what was typed is looked for

/** The controls. What is chosen can be gone back from, what is typed replaces what was. */
export function filters(state) {
	const { data } = state;
	const details = store({ open: false });
	const active = () => [...Object.keys(TEXTS), ...Object.keys(DATES)].filter((name) => data.query[name]).length;
	return t.div(
		{ className: "modelriver-filters m-b-sm", role: "search" },
		t.div(
			{ className: "modelriver-first" },
			search(state),
			states(state),
			t.button(
				{
					type: "button", className: "btn sm secondary", ariaExpanded: () => String(details.open || active() > 0), "html-aria-controls": "modelriver-details",
					hidden: () => active() > 0, onclick: () => details.open = !details.open,
				},
				t.i({ className: "ri-filter-3-line", ariaHidden: true }), t.span({ className: "txt" }, "Filters"),
			),
			t.button(
				{ type: "button", className: "btn sm secondary transparent modelriver-clear", hidden: () => !isFiltered(data.query), onclick: () => state.go({}) },
				t.span({ className: "txt" }, "Clear"),
			),
		),
		t.div(
			{ className: "modelriver-details", id: "modelriver-details", hidden: () => !details.open && !active() },
			...Object.entries(TEXTS).map(([name, [label, member]]) => text(state, name, label, member)),
			...Object.entries(DATES).map(([name, label]) => date(state, name, label)),
		),
	);
}

function search(state) {
	let timer;
	const look = (value) => {
		clearTimeout(timer);
		if (state.alive) state.replace({ search: value.trim() });
	};
	return t.div({ className: "field modelriver-search" }, t.input({
		type: "search", ariaLabel: "Search by title, channel id or record id", placeholder: "Title, channel id or record id",
		value: kept(() => state.data.query.search),
		oninput: (e) => {
			clearTimeout(timer);
			timer = setTimeout(() => look(e.target.value), TYPING);
		},
		onkeydown: (e) => { if (e.key === "Enter") look(e.target.value); },
	}));
}

/** What an input shows. Nothing changes under who types. */
function kept(value) {
	return (el) => {
		const now = value() ?? "";
		return el === document.activeElement && el.value.trim() === now ? el.value : now;
	};
}

function states(state) {
	const { data } = state;
	const is = (value) => (data.query.state ?? "") === value;
	return t.div(
		{ className: "modelriver-states", role: "group", ariaLabel: "Which deliveries to list" },
		...STATES.map(([value, label]) => t.button({
			type: "button",
			className: () => "btn sm " + (is(value) ? "" : "transparent"),
			ariaPressed: () => String(is(value)),
			onclick: () => state.go({ ...data.query, state: value }),
		}, label)),
	);
}

/** A text that must be equal, with those that were seen to choose from. */
function text(state, name, label, member) {
	const id = "modelriver-" + name;
	const seen = () => [...new Set(state.rows.data.ids.map((row) => state.rows.byId.get(row)[member]).filter(Boolean))].sort().slice(0, 100);
	return t.div(
		{ className: "field" },
		t.label({ htmlFor: id }, label),
		t.input({
			id, type: "text", "html-list": id + "-seen", autocomplete: "off",
			value: kept(() => state.data.query[name]),
			onchange: (e) => choose(state, name, e.target.value.trim()),
		}),
		t.datalist({ id: id + "-seen" }, () => seen().map((value) => t.option({ rid: value, value }))),
	);
}

function date(state, name, label) {
	const id = "modelriver-" + name;
	return t.div(
		{ className: "field" },
		t.label({ htmlFor: id }, label),
		t.input({
			id, type: "datetime-local",
			value: () => app.utils.toDatetimeLocalInputValue(state.data.query[name]),
			onchange: (e) => choose(state, name, e.target.value && new Date(e.target.value).toISOString()),
		}),
	);
}

function choose(state, name, value) {
	if ((state.data.query[name] ?? "") !== value) state.go({ ...state.data.query, [name]: value });
}
