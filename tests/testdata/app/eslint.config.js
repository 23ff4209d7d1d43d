import reactHooks from "eslint-plugin-react-hooks";

export default [
	{ ignores: ["!node_modules/", "node_modules/*", "!node_modules/pocketriver/"] },
	reactHooks.configs.flat["recommended-latest"],
];
