// The chart of the page "ModelRiver": what came in, what failed, what was rejected, and how long callbacks took.
import { Fetched } from "./fetched.js";
import { formatCount, formatDuration, parseDate } from "./format.js";
import { Plot } from "./plot.js";

const SPANS = [[24, "24 hours"], [168, "7 days"]];
const REMEMBERED = "modelriverChartHours";

const COUNTS = { title: "Webhooks", series: [["received", "Received"], ["failed", "Failed"], ["rejected", "Rejected"]], format: formatCount, summed: true };
const TIMES = { title: "Time to callback", series: [["median", "Median"], ["p95", "95th percentile"]], format: formatDuration, summed: false };

export function chart(state) {
	const shown = store({ hours: localStorage.getItem(REMEMBERED) === "168" ? 168 : 24 });
	const fetched = new Fetched(state, "/api/modelriver/chart", "buckets", () => ({ hours: shown.hours }), (stats) => stats);
	const buckets = () => fetched.data.answer?.buckets ?? [];
	const span = () => spanOf(fetched.data.answer, shown.hours);
	const show = (hours) => {
		shown.hours = hours;
		localStorage.setItem(REMEMBERED, hours);
		fetched.ask();
	};
	return t.section(
		{ className: "modelriver-chart m-b-base", onmount: () => fetched.mount(), onunmount: () => fetched.unmount() },
		t.header({ className: "flex gap-10 m-b-sm flex-wrap" }, t.h2(null, () => `The last ${span()}`), spanButtons(shown, show)),
		() => fetched.problem(),
		() => emptiness(fetched.data, span()),
		t.div(
			{ className: "modelriver-plots", hidden: () => isEmpty(buckets()) },
			plot(COUNTS, fetched.data),
			plot(TIMES, fetched.data),
		),
		numbers(buckets, () => fetched.data.answer?.seconds),
	);
}

/** The time that is seen, which is not yet what was pressed. */
function spanOf(answer, wanted) {
	const seen = answer ? answer.buckets.length * answer.seconds / 3600 : wanted;
	return SPANS.find(([hours]) => hours === seen)?.[1] ?? `${seen} hours`;
}

function spanButtons(shown, show) {
	return t.div(
		{ className: "btns", role: "group", ariaLabel: "Which time to show" },
		...SPANS.map(([hours, label]) => t.button({
			type: "button",
			className: () => "btn sm " + (shown.hours === hours ? "" : "secondary transparent"),
			ariaPressed: () => String(shown.hours === hours),
			onclick: () => show(hours),
		}, label)),
	);
}

/** A figure of some series. Its legend has the values of the bucket under the pointer, else the totals of what can be summed. */
function plot({ title, series, format, summed }, data) {
	const pointed = store({ at: null });
	const row = () => data.answer?.buckets[pointed.at];
	const value = (key) => row() ? format(row()[key]) : summed ? format(sum(data.answer?.buckets ?? [], key)) : "";
	const drawn = new Plot(series.map(([key]) => key), format, (at) => pointed.at = at);
	let watcher;
	return t.figure(
		null,
		t.figcaption(
			null,
			t.h3(null, title),
			t.ul({ className: "modelriver-legend" }, ...series.map(([key, label]) => t.li(
				null, t.span({ className: "modelriver-swatch " + key, ariaHidden: true }), label, " ", t.strong(null, () => value(key)),
			))),
			t.span({ className: "txt-hint" }, () => row() ? formatSpan(row().at, data.answer.seconds) : summed ? "in all" : ""),
		),
		t.div({
			className: "modelriver-plot", role: "img", ariaLabel: `${title}: the numbers are in the table below`,
			onmount: (el) => {
				drawn.mount(el);
				watcher = watch(() => data.answer, (answer) => drawn.draw(answer));
			},
			onunmount: () => {
				watcher.unwatch();
				drawn.unmount();
			},
		}),
	);
}

/** The same numbers as a table. */
function numbers(buckets, seconds) {
	return t.details(
		{ hidden: () => isEmpty(buckets()), open: !window.uPlot },
		t.summary(null, "The numbers"),
		t.table(
			{ className: "modelriver-numbers" },
			t.thead(null, t.tr(null, t.th({ scope: "col" }, "From"), ...["Received", "Failed", "Rejected", "Median", "95 %"].map((label) => t.th({ scope: "col" }, label)))),
			t.tbody(null, () => buckets().toReversed().map((row) => t.tr(
				{ rid: JSON.stringify(row) },
				t.th({ scope: "row" }, formatSpan(row.at, seconds())),
				...[COUNTS, TIMES].flatMap(({ series, format }) => series.map(([key]) => t.td(null, format(row[key])))),
			))),
		),
	);
}

/** What is said instead of an empty chart. */
function emptiness({ answer, error }, span) {
	if (!answer) return error ? null : t.p({ className: "txt-hint" }, "Loading …");
	if (isEmpty(answer.buckets)) return t.p({ className: "txt-hint modelriver-nothing" }, `Nothing yet: no webhook came in the last ${span}.`);
}

function isEmpty(buckets) {
	return !buckets.some((row) => row.received || row.failed || row.rejected || row.median != null);
}

function sum(rows, key) {
	return rows.reduce((total, row) => total + row[key], 0);
}

/** "26 Nov, 14:00–15:00", in the viewer's time and manner. */
function formatSpan(at, seconds) {
	const from = parseDate(at);
	const time = { hour: "2-digit", minute: "2-digit", hour12: false };
	const end = new Date(from.getTime() + seconds * 1000).toLocaleTimeString(undefined, time);
	return `${from.toLocaleDateString(undefined, { day: "numeric", month: "short" })}, ${from.toLocaleTimeString(undefined, time)}–${end}`;
}
