// Who is signed in, and signing in.
import { $, pb } from "./view.js";

export function showAccount() {
	const { isValid, record } = pb.authStore;
	$("who").textContent = (isValid && (record?.name || record?.email || record?.username)) || "";
	$("sign").textContent = isValid ? "Sign out" : "Sign in";
	$("mine-label").hidden = !isValid;
	$("guest").hidden = isValid;
}

document.addEventListener("click", ({ target }) => {
	if (!target.closest("[data-sign]")) return;
	if (pb.authStore.isValid) pb.authStore.clear();
	else $("dialog").showModal();
});

const form = $("dialog").querySelector("form");
form.querySelector("[value=cancel]").onclick = () => $("dialog").close();
form.onsubmit = async (event) => {
	event.preventDefault();
	try {
		await pb.collection("users").authWithPassword(form.identity.value, form.password.value);
		$("dialog").close();
	} catch (err) {
		$("refusal").textContent = err.status === 400 ? "That is not the right name and password." : err.message;
	}
};
$("dialog").onclose = () => {
	form.reset();
	$("refusal").textContent = "";
};

/** Has the server confirm the session that the browser kept. */
export function confirmSession() {
	if (!pb.authStore.isValid) return;
	const session = new AbortController(); // what is said of one that has ended signs nobody in or out
	pb.authStore.onChange(() => session.abort());
	pb.collection("users").authRefresh({ requestKey: null, signal: session.signal }).catch(({ status }) => [401, 403, 404].includes(status) && pb.authStore.clear());
}
