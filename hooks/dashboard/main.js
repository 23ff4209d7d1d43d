// The page "ModelRiver" of PocketBase's dashboard. PocketBase runs this in one module
// with the extensions of others, so that nothing here may throw or wait.
try {
	const base = app.pb.buildURL("/_/extensions/modelriver/");

	app.store.headerLinks.push({ href: "#/modelriver", icon: "ri-water-flash-line", label: "ModelRiver" });
	app.routes.superuserOnly("#/modelriver", modelriverPage);
	document.head.append(t.link({ rel: "stylesheet", href: base + "style.css" }));

	function modelriverPage() {
		app.store.title = "ModelRiver";

		const data = store({
			stats: null,
			content: [],
			status: "connecting",
			callbacks: null,
			state: "", // of the callbacks to show
			busy: {}, // ids of callbacks that are retried
			retrying: null, // { done, failed, total } while all are
			error: "",
		});

		let alive = true;
		let timer = 0;
		let loading = false;
		let again = false;
		let stop = () => {};
		let shown = "";

		// Callbacks change by SQL, of which no realtime event tells. So the figures are
		// asked for, often while some wait, and the callbacks when the figures change.
		async function refresh(force = false) {
			clearTimeout(timer);
			const started = Date.now();
			if (!alive) return;
			if (loading) {
				again = again || force;
				return;
			}
			loading = true;
			try {
				if (force || !document.hidden) await load(force);
				data.error = "";
			} catch (err) {
				if (!err.isAbort) data.error = err.status === 0 ? "The server does not answer. Trying again …" : err.message;
				if (err.status === 401) app.checkApiError(err);
			}
			loading = false;
			if (!alive) return;
			// A database that takes long to count is asked less often.
			const pause = Math.max(data.stats?.waiting || data.error ? 2000 : 5000, 10 * (Date.now() - started));
			timer = setTimeout(refresh, again ? 200 : pause, again);
			again = false;
		}

		async function load(force) {
			const midnight = new Date();
			midnight.setHours(0, 0, 0, 0);
			const since = midnight.toISOString();
			const stats = await app.pb.send("/api/modelriver/stats", { query: { since }, requestKey: null });
			if (JSON.stringify(stats) !== JSON.stringify(data.stats)) data.stats = stats;
			const now = JSON.stringify([stats, data.state]);
			if (!force && now === shown && !stats.waiting) return;
			const state = data.state;
			const page = await app.pb.collection("modelriverCallbacks").getList(1, 30, {
				sort: "-created,-id",
				filter: state ? `state = "${state}"` : "",
				expand: "record",
				fields: "id,collectionId,collectionName,record,expand.record.title,payload:excerpt(1),state,attempts,lastStatus,lastError,created,deliveredAt,nextAttempt",
				skipTotal: true,
				requestKey: null,
			});
			if (state !== data.state) return;
			if (JSON.stringify(page.items) !== JSON.stringify(data.callbacks)) data.callbacks = page.items;
			shown = now;
		}

		function arm(id) {
			return app.pb.collection("modelriverCallbacks").update(id, { state: "pending" }, { requestKey: null, fields: "id" });
		}

		async function retry(id) {
			data.busy = { ...data.busy, [id]: true };
			try {
				await arm(id);
				app.toasts.success("The callback is sent again.");
			} catch (err) {
				app.checkApiError(err);
			}
			data.busy = { ...data.busy, [id]: false };
			refresh(true);
		}

		async function retryAll() {
			data.retrying = { done: 0, failed: 0, total: data.stats.failed };
			const tried = new Set();
			try {
				for (let last = ""; alive;) {
					const page = await app.pb.collection("modelriverCallbacks").getList(1, 200, {
						filter: `state = "failed" && id > "${last}"`, sort: "id", fields: "id", skipTotal: true, requestKey: null,
					});
					const ids = page.items.map((row) => row.id);
					if (!ids.length) break;
					last = ids[ids.length - 1];
					const next = async () => {
						for (let id; alive && (id = ids.shift());) {
							const failed = await arm(id).then(() => 0, () => 1);
							const { done, total } = data.retrying;
							data.retrying = { done: done + 1 - failed, failed: data.retrying.failed + failed, total: Math.max(total, done + 1) };
						}
					};
					await Promise.all([next(), next(), next(), next()]);
				}
				const { done, failed } = data.retrying;
				if (failed) app.toasts.error(`${failed} callbacks could not be retried.`);
				else app.toasts.success(`${done} callbacks are sent again.`);
			} catch (err) {
				app.checkApiError(err);
			}
			data.retrying = null;
			refresh(true);
		}

		async function follow() {
			let liveQuery;
			try {
				({ liveQuery } = await import(base + "live-query.js"));
			} catch (err) {
				data.error = "The list of content could not be loaded: reload the page.";
				return;
			}
			if (!alive) return;
			stop = liveQuery(app.pb, "aiContent", { limit: 10 }, ({ items, status, error }) => {
				data.content = items;
				data.status = status === "failed" ? error.message : status;
				refresh();
			});
		}

		return t.div(
			{
				className: "page modelriver",
				onmount: () => {
					refresh(true);
					follow();
				},
				onunmount: () => {
					alive = false;
					clearTimeout(timer);
					stop();
				},
			},
			t.div(
				{ className: "page-content full-height" },
				t.header(
					{ className: "page-header" },
					t.h1({ className: "breadcrumbs" }, t.span({ className: "breadcrumb-item" }, "ModelRiver")),
					app.components.refreshButton({ onclick: () => refresh(true) }),
					t.div(
						{ className: "meta m-l-auto", role: "status" },
						t.span({
							className: () => "label " + (data.error ? "danger" : data.status === "live" && !data.stats?.rejected.count ? "success" : ""),
							textContent: () => data.error || { live: "Live", connecting: "Connecting …", offline: "Offline" }[data.status] || data.status,
						}),
					),
				),
				() => setUp(data.stats),
				() => rejections(data.stats),
				() => figures(data.stats),
				t.div(
					{ className: "modelriver-lists" },
					t.section(
						null,
						t.header({ className: "flex gap-10 m-b-sm" }, t.h2(null, "Content")),
						() => contentList(data),
					),
					t.section(
						null,
						t.header(
							{ className: "flex gap-10 m-b-sm flex-wrap" },
							t.h2(null, "Callbacks"),
							t.div(
								{ className: "btns", role: "group", ariaLabel: "Which callbacks to list" },
								...[["", "All"], ["pending", "Waiting"], ["failed", "Failed"]].map(([state, label]) =>
									t.button({
										type: "button",
										className: () => "btn sm " + (data.state === state ? "" : "secondary transparent"),
										ariaPressed: () => String(data.state === state),
										onclick: () => {
											data.state = state;
											refresh(true);
										},
									}, label)
								),
							),
							t.button(
								{
									type: "button",
									hidden: () => !data.stats?.failed && !data.retrying,
									disabled: () => !!data.retrying,
									className: () => "btn sm secondary m-l-auto modelriver-retry-all",
									onclick: () => app.modals.confirm(
										`Send ${data.stats.failed === 1 ? "the failed callback" : data.stats.failed + " failed callbacks"} again?`, () => void retryAll(), null,
										{ yesButton: "Send again", noButton: "Cancel" },
									),
								},
								t.i({ className: "ri-restart-line", ariaHidden: true }),
								t.span({ className: "txt" }, () =>
									data.retrying ? `${data.retrying.done} of ${data.retrying.total}` : data.stats?.failed === 1 ? "Retry the failed one" : `Retry all ${data.stats?.failed} failed`),
							),
						),
						() => callbackList(data, retry),
					),
				),
				t.footer({ className: "page-footer" }, app.components.credits()),
			),
		);
	}

	function setUp(stats) {
		if (!stats || (stats.secretSet && stats.keySet && !stats.problem)) return;
		const step = (done, ...content) => t.li(
			{ className: done ? "txt-hint" : "" },
			t.i({ className: done ? "ri-checkbox-circle-line txt-success" : "ri-checkbox-blank-circle-line", ariaHidden: true }),
			t.span(null, ...content, done ? " (done)" : ""),
		);
		return t.section(
			{ className: "alert warning modelriver-setup m-b-base", ariaLabel: "Set-up" },
			t.h2(null, stats.problem ? "Webhooks cannot be stored" : "Finish the set-up"),
			stats.problem && t.p(null, stats.problem + "."),
			t.ol(
				null,
				step(false, "In ModelRiver's console, create a webhook to ", t.code(null, webhookURL(stats)), app.components.copyButton(webhookURL(stats)),
					location.protocol === "https:" ? "" : " (ModelRiver must be able to reach this address.)"),
				step(stats.secretSet, "Start the server with the webhook's signing secret in ", t.code(null, "MODELRIVER_WEBHOOK_SECRET"),
					". Until then every webhook is answered 503, and ModelRiver tries again."),
				step(stats.keySet, "Start the server with a project key in ", t.code(null, "MODELRIVER_API_KEY"),
					". Until then callbacks wait, and fail after their window, by default 5 minutes."),
			),
		);
	}

	function rejections(stats) {
		const { count, last, reason, remedy } = stats?.rejected ?? {};
		if (!count) return;
		return t.section(
			{ className: "alert danger modelriver-rejected m-b-base", ariaLabel: "Rejected webhooks" },
			t.h2(null, `${count.toLocaleString()} ${count === 1 ? "webhook was" : "webhooks were"} rejected since the server started`),
			t.p(null, `The last at ${app.utils.toLocalDatetime(last)}: ${reason}. Remedy: ${remedy}.`),
		);
	}

	function webhookURL(stats) {
		return location.origin + stats.path;
	}

	function figures(stats) {
		const figure = (label, value, hint, kind = "") => t.div(
			{ className: "modelriver-figure", ariaDescription: app.attrs.tooltip(hint, "top") },
			t.dt({ className: "txt-hint" }, label),
			t.dd({ className: kind }, stats ? value : "…"),
		);
		const count = (n) => (n ?? 0).toLocaleString();
		const s = stats ?? {};
		return t.dl(
			{ className: "modelriver-figures m-b-base" },
			figure("Received today", count(s.received), "Events with AI data, each counted once however often it was sent"),
			figure("Stored today", count(s.stored), "New records in aiContent"),
			figure("Delivered today", count(s.delivered), "Callbacks that ModelRiver accepted"),
			figure("Waiting", count(s.waiting), "Callbacks that are still to be sent"),
			figure("Failed", count(s.failed), "Callbacks of any day, until they are retried or deleted", s.failed ? "modelriver-danger" : ""),
			figure("Median callback", s.median == null ? "–" : duration(s.median), "From the webhook to ModelRiver's answer, of the latest 1,000 that came within the callback window"),
		);
	}

	function duration(ms) {
		return ms < 1000 ? `${ms} ms` : ms < 60_000 ? `${(ms / 1000).toFixed(1)} s` : `${(ms / 60_000).toFixed(1)} min`;
	}

	function contentList(data) {
		if (!data.content.length) {
			return t.div(
				{ className: "list" },
				t.div({ className: "list-item txt-hint" }, data.status !== "live" ? "Loading …" : data.stats?.rejected.count ? "Nothing is stored yet: webhooks are rejected, see above." : t.div(
					null,
					"Nothing has arrived yet. Point a ModelRiver webhook here, or send a sample: ",
					t.code(null, "./pocketriver modelriver send"),
				)),
			);
		}
		return t.div({ className: "list" }, ...data.content.map((row) => item(
			row.id, () => app.modals.openRecordPreview(row),
			t.strong({ className: "txt-ellipsis" }, row.title),
			[t.span({ className: "label sm" }, row.category), row.eventName && t.span({ className: "label sm" }, row.eventName)],
			row.created,
		)));
	}

	function callbackList(data, retry) {
		const rows = data.callbacks;
		if (!rows?.length) {
			const text = !rows ? "Loading …" : data.state === "failed" ? "No callback has failed." : data.state ? "No callback waits." : "No callbacks yet.";
			return t.div({ className: "list" }, t.div({ className: "list-item txt-hint" }, text));
		}
		const kinds = { delivered: "success", failed: "danger", pending: "warning" };
		return t.div({ className: "list" }, ...rows.map((row) => item(
			row.id, () => app.modals.openRecordPreview(row),
			t.strong({ className: "txt-ellipsis" }, row.expand?.record?.title ?? (row.payload ? "Refused: see the payload" : "Its record was deleted")),
			[
				t.span({ className: "label sm " + kinds[row.state] }, row.state === "pending" ? "waiting" : row.state),
				t.span({ className: "txt-hint txt-sm" }, `${row.attempts} ${row.attempts === 1 ? "attempt" : "attempts"}${row.lastStatus ? `, last answer ${row.lastStatus}` : ""}`),
				row.lastError && t.div({ className: "txt-sm modelriver-danger modelriver-error" }, row.lastError),
			],
			row.created,
			row.record && t.button({
				type: "button", className: "btn sm circle transparent secondary", ariaLabel: app.attrs.tooltip("Open the record"),
				onclick: () => app.modals.openRecordPreview({ id: row.record, collectionName: "aiContent" }),
			}, t.i({ className: "ri-file-text-line", ariaHidden: true })),
			row.state === "failed" && t.button({
				type: "button", className: () => `btn sm circle transparent secondary modelriver-retry ${data.busy[row.id] ? "loading" : ""}`,
				disabled: () => !!data.busy[row.id], ariaLabel: app.attrs.tooltip("Retry"),
				onclick: () => retry(row.id),
			}, t.i({ className: "ri-restart-line", ariaHidden: true })),
		)));
	}

	function item(id, open, title, details, created, ...actions) {
		return t.div(
			{ className: "list-item", rid: id },
			t.div(
				{ className: "content modelriver-item" },
				t.button({ type: "button", className: "modelriver-open", onclick: open }, title),
				...details.filter(Boolean),
			),
			app.components.formattedDate({ value: created, short: true }),
			t.div({ className: "actions" }, ...actions.filter(Boolean)),
		);
	}
} catch (err) {
	console.warn("The ModelRiver page could not be added:", err);
}
