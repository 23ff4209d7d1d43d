// What the page says of its connection.
import { $ } from "./view.js";

let stateTimer = 0;
let lostAt = null;

export function showState(status, error) {
	clearTimeout(stateTimer);
	// PocketBase ends a stream every now and then: that is not worth a word.
	if (status === "connecting" && $("state").dataset.status === "live") {
		stateTimer = setTimeout(() => setState(status), 1000);
	} else {
		setState(status);
	}
	lostAt = status === "offline" ? (lostAt ?? new Date()) : null;
	const notice = status === "failed" ? `The server refuses this list: ${error.message}`
		: lostAt && `No connection since ${lostAt.toLocaleTimeString()}. ${$("feed").firstChild ? "You see what was there then." : ""} Trying again …`;
	$("notice").hidden = !notice;
	if (notice !== $("notice").textContent) $("notice").textContent = notice || "";
}

function setState(status) {
	const text = { live: "Live", connecting: "Connecting…", offline: "Offline", failed: "Refused" }[status];
	if ($("state").textContent !== text) $("state").textContent = text;
	$("state").dataset.status = status;
}
