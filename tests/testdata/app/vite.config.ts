import { svelte } from "@sveltejs/vite-plugin-svelte";
import { defineConfig } from "vite";

export default defineConfig({
	base: "./",
	plugins: [svelte({ configFile: false })],
	define: { __VUE_OPTIONS_API__: true, __VUE_PROD_DEVTOOLS__: false, __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: false }, // else Vue warns
	build: { rolldownOptions: { input: ["react.html", "vue.html", "svelte.html"] } },
});
