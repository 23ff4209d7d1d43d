// Keeps what an endpoint of the server answers, for a panel of the page "ModelRiver".
const MINUTE = 60_000;
const PAUSE = 10_000; // at least, between two requests

/**
 * What the endpoint path answers, an object with the given list: asked for when the panel is shown, when what it cares for
 * in the figures changes, and once a minute, while the page is seen. mount and unmount are the panel's.
 */
export class Fetched {
	data = store({ answer: null, error: "" });

	constructor(state, path, list, query, caredFor) {
		Object.assign(this, { state, path, list, query, caredFor });
		this.seen = () => this.due();
	}

	mount() {
		this.alive = true;
		this.asked = 0;
		document.addEventListener("visibilitychange", this.seen);
		const { data } = this.state;
		this.watcher = watch(() => data.stats && JSON.stringify(this.caredFor(data.stats)), (now, before) => {
			if (before && now !== before) this.askSoon();
		});
		this.askSoon();
	}

	unmount() {
		this.alive = false;
		clearTimeout(this.timer);
		document.removeEventListener("visibilitychange", this.seen);
		this.watcher.unwatch();
	}

	askSoon() {
		this.plan(this.asked + PAUSE - Date.now());
	}

	/** Asks if the last answer is old: nobody asks for a page that is hidden. */
	due() {
		this.plan(this.asked + (this.wanted ? PAUSE : MINUTE) - Date.now());
	}

	plan(pause) {
		clearTimeout(this.timer);
		if (this.alive) this.timer = setTimeout(() => this.ask(), Math.max(0, pause));
	}

	/** Asks now. An answer to an older question is dropped. */
	async ask() {
		const { data } = this;
		this.wanted = document.hidden;
		if (this.wanted) return;
		this.asked = Date.now();
		const question = this.question = {};
		try {
			const answer = await this.state.fetch(this.path, this.query());
			if (question !== this.question || !this.alive) return;
			if (!answer?.[this.list]) throw { status: 404 }; // a throw while the page is drawn would stop all of PocketBase's dashboard
			data.error = "";
			if (JSON.stringify(answer) !== JSON.stringify(data.answer)) data.answer = answer;
			this.plan(MINUTE);
		} catch (err) {
			if (question !== this.question || !this.alive) return;
			if (!err.isAbort) data.error = remedy(err);
			this.plan(PAUSE);
		}
	}

	/** The panel's line of what went wrong, and a button to try again. */
	problem() {
		if (!this.data.error) return;
		return t.p(
			{ className: "modelriver-danger modelriver-problem" },
			t.span(null, this.data.error),
			t.button({ type: "button", className: "btn sm secondary", onclick: () => this.ask() }, "Try again"),
		);
	}
}

function remedy(err) {
	if (!err.status) return "The server does not answer. See whether it runs, and its terminal.";
	if (err.status === 404) return "The server does not know this question: it has another version than this page. Reload the page.";
	if (err.status === 401 || err.status === 403) return "Only superusers see this. Sign in again.";
	return `${err.message} The reason is in the log: Logs, above.`;
}
