// What the page "ModelRiver" says of the server: what is missing, and what it found when it looked at itself.
import { copied } from "./copied.js";
import { Fetched } from "./fetched.js";
import { formatTime, plural, webhookURL } from "./format.js";

const GRADES = {
	problem: { icon: "ri-error-warning-line modelriver-danger", word: "Problem" },
	warning: { icon: "ri-alert-line modelriver-warning", word: "Warning" },
	ok: { icon: "ri-checkbox-circle-line txt-success", word: "OK" },
};

export function health(state) {
	const { data } = state;
	const fetched = new Fetched(state, "/api/modelriver/doctor", "findings", () => ({}), ({ secrets, keySet, problem, asking, nodes }) => [secrets, keySet, problem, asking, nodes]);
	return t.div(
		{ onmount: () => fetched.mount(), onunmount: () => fetched.unmount() },
		() => setUp(data.stats),
		t.section(
			{ className: "modelriver-health m-b-base", ariaLabel: "Server" },
			() => facts(data.stats),
			() => findings(fetched.data.answer, (grade) => grade !== "ok"),
			() => fetched.problem(),
			sound(fetched.data),
		),
	);
}

/** What is still to be done before webhooks arrive. */
function setUp(stats) {
	if (!stats || (stats.secrets && stats.keySet && !stats.problem)) return;
	const step = (done, ...content) => t.li(
		null,
		t.i({ className: done ? "ri-checkbox-circle-line txt-success" : "ri-checkbox-blank-circle-line", ariaHidden: true }),
		t.span(null, ...content, done ? " (done)" : ""),
	);
	return t.section(
		{ className: "alert warning modelriver-setup m-b-base", ariaLabel: "Set-up" },
		t.h2(null, stats.problem ? "Webhooks cannot be stored" : "Finish the set-up"),
		stats.problem ? t.p(null, stats.problem + ".") : null,
		t.ol(
			null,
			step(false, "In ModelRiver's console, create a webhook to ", copied(webhookURL(stats), "Copy the webhook URL"),
				location.protocol === "https:" ? "" : " (ModelRiver must be able to reach this address.)"),
			step(stats.secrets, "Start the server with the webhook's signing secret in ", t.code(null, "MODELRIVER_WEBHOOK_SECRET"),
				". Until then every webhook is answered 503, and ModelRiver tries again."),
			step(stats.keySet, "Start the server with a project key in ", t.code(null, "MODELRIVER_API_KEY"),
				". Until then callbacks wait, and fail after their window, by default 5 minutes."),
		),
	);
}

function facts(stats) {
	if (!stats) return t.p({ className: "txt-hint" }, "Loading …");
	const fact = (name, ...value) => t.div(null, t.dt({ className: "txt-hint" }, name), t.dd(null, ...value));
	return t.dl(
		{ className: "modelriver-facts" },
		fact("Webhook URL", copied(webhookURL(stats), "Copy the webhook URL")),
		fact("Secrets", `${stats.secrets ? plural(stats.secrets, "secret") : "no secret"}, ${stats.keySet ? "key set" : "no key"}`),
		fact("Asking", ...asking(stats.asking ?? {})),
		...replica(stats.replica).map((value) => fact("Replica", ...value)),
		stats.nodes ? fact("Nodes", ...stats.nodes.flatMap((node, i) => [i ? "; " : "", ...standing(node)])) : null,
		fact("Versions", `PocketRiver ${stats.versions?.pocketriver || "development"}, PocketBase ${stats.versions?.pocketbase}`),
	);
}

/** How the replica stands, if there is one: a list of one value, or none. */
function replica(state) {
	if (!state) return [];
	const { url, ack, epoch, upToDate, shipped, error, verified } = state;
	const has = upToDate ? "up to date" : !shipped ? "has nothing yet" : `has what was stored until ${formatTime(shipped)}`;
	const standing = error ? [t.strong({ className: "modelriver-danger" }, "failing: "), `${error}; `, has] : [has];
	const test = verified
		? [verified.error ? t.strong({ className: "modelriver-danger" }, `damaged: ${verified.error}`) : `verified ${formatTime(verified.at)}`]
		: ["never verified here"];
	return [[
		...standing, `; epoch ${epoch}; `, ack === "wait" ? "a 200 waits for it" : "a 200 does not wait for it", "; ", ...test, ". ", t.code(null, url),
	]];
}

/** How one of several nodes stands: the findings say more of what is wrong. */
function standing({ name, here, reached, leads, behind, differs }) {
	const wrong = [behind, differs.length ? here ? "not as most" : "not as this node" : ""].filter(Boolean).join(", ");
	return [
		here ? `${name} (this node) ` : `${name} `,
		reached ? leads ? t.strong(null, "leads") : "follows" : t.strong({ className: "modelriver-danger" }, "does not answer"),
		...reached && wrong ? [", ", t.strong({ className: "modelriver-warning" }, wrong)] : [],
	];
}

/** Who may create requests, which cost money. */
function asking({ open, limited }) {
	if (!open) return ["closed: only superusers"];
	if (limited) return ["open, limited"];
	return [
		t.strong({ className: "modelriver-danger" }, "open, not limited: "),
		"it costs money. Turn on ", t.a({ href: "#/settings" }, "Settings, Application, Rate limiting"), " and add a rule ", t.code(null, "aiRequests:create"), ".",
	];
}

function findings(answer, wanted) {
	const rows = (answer?.findings ?? []).filter(({ grade }) => wanted(grade));
	if (!rows.length) return;
	return t.ul({ className: "modelriver-findings" }, ...rows.map(({ check, grade, text, remedy }) => {
		const { icon, word } = GRADES[grade] ?? GRADES.warning;
		return t.li(
			null,
			t.i({ className: icon, ariaHidden: true }),
			t.div(null, t.strong(null, `${word}: ${check}`), ` – ${text}`, remedy ? t.p(null, remedy) : null),
		);
	}));
}

/** The checks that found nothing wrong, folded. */
function sound(data) {
	const rows = () => (data.answer?.findings ?? []).filter(({ grade }) => grade === "ok");
	const text = () => rows().length === data.answer?.findings.length ? `All ${plural(rows().length, "check")} are fine` : `${plural(rows().length, "other check")} found nothing wrong`;
	return t.details(
		{ hidden: () => !rows().length },
		t.summary(null, text),
		() => findings(data.answer, (grade) => grade === "ok"),
		t.p({ className: "txt-hint" }, "The way to ModelRiver and back is checked in the terminal only: ", t.code(null, "./pocketriver modelriver doctor"), "."),
	);
}
