import { mount, unmount } from "svelte";
import Feed from "./Feed.svelte";

const feed = mount(Feed, { target: document.getElementById("root")! });
Object.assign(window, { hide: () => unmount(feed) });
