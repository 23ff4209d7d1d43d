import PocketBase from "pocketbase";
import { type AiContent } from "pocketriver";
import { useLiveQuery } from "pocketriver/vue";
import { createApp, defineComponent, h, ref } from "vue";

const pb = new PocketBase("/");

const Feed = defineComponent({
	props: { category: { type: String, required: true } },
	setup(props) {
		const { items, status } = useLiveQuery<AiContent>(pb, "aiContent", () => ({ filter: pb.filter("category = {:category}", props) }));
		return () => h("ul", { id: "feed", class: status.value }, items.value.map((item) => h("li", { key: item.id }, item.title)));
	},
});

createApp(defineComponent({
	setup() {
		const category = ref("stories");
		const shown = ref(true);
		return () => [
			h("button", { id: "other", onClick: () => (category.value = "none") }, category.value),
			h("button", { id: "hide", onClick: () => (shown.value = false) }, "Hide"),
			shown.value ? h(Feed, { category: category.value }) : null,
		];
	},
})).mount("#root");
