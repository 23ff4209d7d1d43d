// What an operator does on the page "ModelRiver".

/** Asks before something is done, and gives the focus back. */
export function ask(question, yesButton, noButton, then) {
	const asker = document.activeElement;
	const back = () => void setTimeout(() => asker?.focus(), 50); // PocketBase gives the focus back, and takes it away again
	app.modals.confirm(question, () => {
		back();
		void then();
	}, back, { yesButton, noButton });
}

/** Sends a delivery's callback again, or ingests again what was refused. */
export async function retry(state, id, done = "The callback is sent again.") {
	await busy(state, id, async () => {
		await arm(id);
		app.toasts.success(done);
	});
}

/** Sends the callbacks of all failed deliveries again. */
export async function retryAll(state) {
	const { data } = state;
	data.retrying = { done: 0, failed: 0, total: data.stats.failed };
	try {
		for (let last = ""; state.alive;) {
			const page = await app.pb.collection("modelriverCallbacks").getList(1, 200, {
				filter: `state = "failed" && id > "${last}"`, sort: "id", fields: "id", skipTotal: true, requestKey: null,
			});
			const ids = page.items.map((row) => row.id);
			if (!ids.length) break;
			last = ids[ids.length - 1];
			await Promise.all([1, 2, 3, 4].map(() => retryEach(state, ids)));
		}
		const { done, failed } = data.retrying;
		if (failed) app.toasts.error(`${failed} callbacks could not be retried.`);
		else app.toasts.success(`${done} callbacks are sent again.`);
	} catch (err) {
		app.checkApiError(err);
	}
	data.retrying = null;
	state.refresh(true);
}

/** Takes ids off the list until there are none, beside others. */
async function retryEach(state, ids) {
	for (let id; state.alive && (id = ids.shift());) {
		const failed = await arm(id).then(() => 0, () => 1);
		const { done, failed: before, total } = state.data.retrying;
		state.data.retrying = { done: done + 1 - failed, failed: before + failed, total: Math.max(total, done + 1) };
	}
}

function arm(id) {
	return app.pb.collection("modelriverCallbacks").update(id, { state: "pending" }, { requestKey: null, fields: "id" });
}

/** Ends an open request. The server knows best whether it still is one. */
export function cancel(state, row) {
	return changeRequest(state, row.id, { state: "failed" }, "failed", "The request is cancelled.", "The request was answered meanwhile.");
}

/** Asks again, if the request is still what the operator has seen: the server compares that. */
export function askAgain(state, { id, attempts, expires, channelId, error }) {
	const seen = { attempts, expires, channelId, error };
	return changeRequest(state, id, { state: "queued", ...seen }, "queued", "The request is asked again.", "The request has changed meanwhile: it is not asked again.");
}

function changeRequest(state, id, change, want, done, not) {
	return busy(state, id, async () => {
		const { state: now } = await app.pb.collection("aiRequests").update(id, change, { requestKey: null, fields: "state" });
		if (now === want) app.toasts.success(done);
		else app.toasts.info(not);
	});
}

/** Does something about a row, whose button shows so long that it is done. */
async function busy(state, id, act) {
	const { data } = state;
	data.busy = { ...data.busy, [id]: true };
	try {
		await act();
	} catch (err) {
		app.checkApiError(err);
	}
	data.busy = { ...data.busy, [id]: false };
	state.refresh(true);
}
