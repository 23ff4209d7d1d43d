// What the package's types promise.
import PocketBase, { type RecordModel } from "pocketbase";
import { ask, AskError, liveQuery, type AiContent, type AiRequest, type Query, type Result } from "pocketriver";
import { useAsk, useLiveQuery as useReact, usePaginatedLiveQuery } from "pocketriver/react";
import { liveQueryStore } from "pocketriver/svelte";
import { useLiveQuery as useVue } from "pocketriver/vue";
import { ref } from "vue";

const pb = new PocketBase("/");
const query: Query = { filter: 'category = "a"', sort: "-created", limit: 10, fields: "id", expand: "user" };

/** Fails to compile unless the two types are the same. */
export function same<A, B>(..._: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]) {}

export const stop: () => void = liveQuery(pb, "posts", query, (result) => same<typeof result, Result<RecordModel>>());
liveQuery<AiContent<{ summary: string }>>(pb, "aiContent", {}, ({ items, status, error }) => {
	same<typeof status, "connecting" | "live" | "offline" | "failed">();
	same<typeof error, Error | null>();
	same<(typeof items)[0]["data"], { summary: string }>();
	same<(typeof items)[0]["title"], string>();
	// @ts-expect-error no such field
	void items[0].name;
});
// @ts-expect-error no such option
liveQuery(pb, "posts", { filters: "" }, () => {});
// @ts-expect-error the client is not a URL
liveQuery("/", "posts", {}, () => {});

export async function asking() {
	const answer = await ask<AiContent<{ summary: string }>>(pb, { workflow: "story", input: { messages: [] } }, { timeout: 1000, signal: AbortSignal.timeout(1000) });
	same<typeof answer.data, { summary: string }>();
	// @ts-expect-error no workflow
	await ask(pb, { input: {} });
	liveQuery<AiRequest>(pb, "aiRequests", {}, ({ items }) => same<(typeof items)[0]["state"], "queued" | "sent" | "answered" | "failed">());
	return new AskError("", answer).request;
}

export function components() {
	const asked = useAsk<AiContent>(pb);
	same<typeof asked.answer, AiContent | null>();
	same<typeof asked.status, "idle" | "asking" | "answered" | "failed">();
	asked.ask({ workflow: "story", input: { messages: [] } });
	const plain = useReact(pb, "posts");
	same<typeof plain, Result<RecordModel>>();
	const skipped = useReact<AiContent>(pb, "aiContent", null);
	same<typeof skipped.items, AiContent[]>();
	const { items, status, loadMore } = usePaginatedLiveQuery<AiContent>(pb, "aiContent", { sort: "title" }, { initialNumItems: 5 });
	same<typeof items, AiContent[]>();
	same<typeof status, "LoadingFirstPage" | "CanLoadMore" | "LoadingMore" | "Exhausted" | "Failed">();
	same<typeof loadMore, (numItems: number) => void>();
	// @ts-expect-error the pages decide
	usePaginatedLiveQuery(pb, "aiContent", { limit: 5 }, { initialNumItems: 5 });

	const inVue = useVue<AiContent>(pb, "aiContent", ref(query));
	same<typeof inVue.items.value, AiContent[]>();
	useVue(pb, "posts", () => (Math.random() > 0.5 ? query : null));
	useVue(pb, "posts", query);

	liveQueryStore<AiContent>(pb, "aiContent", query).subscribe((result) => same<typeof result, Result<AiContent>>());
}
