// What the package's types promise.
import PocketBase, { type RecordModel } from "pocketbase";
import { liveQuery, type AiContent, type Query, type Result } from "pocketriver";
import { useLiveQuery as useReact, usePaginatedLiveQuery } from "pocketriver/react";
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

export function components() {
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
