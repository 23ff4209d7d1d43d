import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
	base: "./",
	plugins: [svelte({ configFile: false })],
	build: { rolldownOptions: { input: ["react.html", "vue.html", "svelte.html"] } },
});
