// Renders where there is no page: it shows nothing yet, opens nothing, and ends.
globalThis.EventSource = class {
	constructor() {
		throw new Error("a server opened a stream");
	}
};
globalThis.fetch = () => {
	throw new Error("a server asked for rows");
};
const { default: PocketBase } = await import("pocketbase");
const { liveQuery } = await import("pocketriver");
const react = await import("pocketriver/react");
const { liveQueryStore } = await import("pocketriver/svelte");
const { useLiveQuery } = await import("pocketriver/vue");
const { createElement } = await import("react");
const { renderToString } = await import("react-dom/server");
const { get } = await import("svelte/store");
const { createSSRApp, h } = await import("vue");
const vue = await import("vue/server-renderer");

const pb = new PocketBase("http://127.0.0.1:1");
const rows = { limit: 10 };

function Feed() {
	const { items, status } = react.useLiveQuery(pb, "aiContent", rows);
	const pages = react.usePaginatedLiveQuery(pb, "aiContent", {}, { initialNumItems: 2 });
	return createElement("p", null, `${items.length} ${status}, ${pages.items.length} ${pages.status}`);
}

const app = createSSRApp({
	setup() {
		const { items, status } = useLiveQuery(pb, "aiContent", rows);
		return () => h("p", `${items.value.length} ${status.value}`);
	},
});

console.log(typeof liveQuery);
console.log(renderToString(createElement(Feed)));
console.log(await vue.renderToString(app));
console.log(JSON.stringify(get(liveQueryStore(pb, "aiContent", rows))));
