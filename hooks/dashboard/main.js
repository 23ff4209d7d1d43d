// Adds the page "ModelRiver" to PocketBase's dashboard. PocketBase runs this in one module
// with the extensions of others, so that nothing here may throw or wait.
try {
	const base = app.pb.buildURL("/_/extensions/modelriver/");

	app.store.headerLinks.push({ href: "#/modelriver", icon: "ri-water-flash-line", label: "ModelRiver" });
	app.routes.superuserOnly("#/modelriver", async () => {
		app.store.title = "ModelRiver";
		try {
			const { page } = await import(base + "page.js");
			return page();
		} catch (err) {
			console.warn("The ModelRiver page could not be loaded:", err);
			return t.div({ className: "page" }, t.div({ className: "page-content" }, t.p(
				{ className: "alert danger" }, "The page could not be loaded: reload it when the server answers.",
			)));
		}
	});
	document.head.append(...["style.css", "panels.css"].map((file) => t.link({ rel: "stylesheet", href: base + file })));
} catch (err) {
	console.warn("The ModelRiver page could not be added:", err);
}
