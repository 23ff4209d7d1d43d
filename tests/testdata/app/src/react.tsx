import PocketBase from "pocketbase";
import { type AiContent } from "pocketriver";
import { useAsk, useLiveQuery, usePaginatedLiveQuery } from "pocketriver/react";
import { StrictMode, useEffect, useState } from "react";
import { createRoot } from "react-dom/client";

const pb = new PocketBase("/");

// What the test reads: how often effects ran, and each state of the pages.
const seen = { effects: 0, pages: [] as string[] };
Object.assign(window, { seen, pb });

function Feed({ category }: { category: string }) {
	const { items, status } = useLiveQuery<AiContent>(pb, "aiContent", { filter: pb.filter("category = {:category}", { category }), limit: 10 });
	return <ul id="feed" className={status}>{items.map((item) => <li key={item.id}>{item.title}</li>)}</ul>;
}

function Pages() {
	const { items, status, loadMore } = usePaginatedLiveQuery<AiContent>(pb, "aiContent", {}, { initialNumItems: 2 });
	useEffect(() => {
		seen.pages.push(items.length + " " + status);
	}, [items, status]);
	return (
		<>
			<ul id="pages" className={status}>{items.map((item) => <li key={item.id}>{item.title}</li>)}</ul>
			<button id="more" onClick={() => loadMore(2)}>More</button>
		</>
	);
}

function Skipped() {
	const { items, status } = useLiveQuery(pb, "aiContent", null);
	return <p id="skipped">{items.length} {status}</p>;
}

function Asker() {
	const { ask, status, request, answer, error } = useAsk<AiContent>(pb);
	return (
		<p id="asker" className={status}>
			<button id="ask" onClick={() => ask({ workflow: "story", input: { messages: [{ role: "user", content: "Why?" }] } })}>Ask</button>
			<span>{answer?.title ?? error?.message ?? request?.state}</span>
		</p>
	);
}

function App() {
	const [renders, setRenders] = useState(1);
	const [category, setCategory] = useState("stories");
	useEffect(() => {
		seen.effects++;
	}, []);
	return (
		<>
			<button id="again" onClick={() => setRenders(renders + 1)}>Rendered {renders} times</button>
			<button id="other" onClick={() => setCategory("none")}>{category}</button>
			<Asker />
			<Feed category={category} />
			<Pages />
			<Skipped />
		</>
	);
}

createRoot(document.getElementById("root")!).render(<StrictMode><App /></StrictMode>);
