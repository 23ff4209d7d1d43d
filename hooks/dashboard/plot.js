// Draws numbers over time with uPlot, which PocketBase's dashboard has for its page "Logs".
import { parseDate } from "./format.js";

const HEIGHT = 160;
const HOUR = 3600;

/** A canvas with the series of those keys. onPoint is told the index of the bucket under the pointer, or null. */
export class Plot {
	constructor(keys, format, onPoint) {
		Object.assign(this, { keys, format, onPoint });
	}

	mount(el) {
		this.el = el;
		// The size of the page, and the theme, may change at any time.
		this.sizes = new ResizeObserver(() => this.uplot?.setSize({ width: el.clientWidth, height: HEIGHT }));
		this.sizes.observe(el);
		this.themes = new MutationObserver(() => this.draw(this.answer));
		this.themes.observe(document.documentElement, { attributeFilter: ["data-color-scheme"] });
	}

	unmount() {
		this.sizes.disconnect();
		this.themes.disconnect();
		this.uplot?.destroy();
		this.uplot = null;
	}

	draw(answer) {
		this.answer = answer;
		this.uplot?.destroy();
		this.uplot = null;
		if (!answer?.buckets.length || !window.uPlot) return;
		// A bucket is drawn in its middle.
		const times = answer.buckets.map(({ at }) => parseDate(at) / 1000 + answer.seconds / 2);
		const columns = this.keys.map((key) => answer.buckets.map((row) => row[key]));
		this.uplot = new window.uPlot(this.options(times, answer.seconds), [times, ...columns], this.el);
	}

	options(times, seconds) {
		const text = getComputedStyle(this.el).getPropertyValue("--surfaceTxtHintColor");
		const line = { stroke: getComputedStyle(this.el).getPropertyValue("--surfaceAlt2Color"), width: 1 };
		const axis = { stroke: text, grid: line, ticks: { ...line, size: 5 }, font: "12px system-ui, sans-serif" };
		const whole = this.keys.includes("received");
		return {
			width: this.el.clientWidth, height: HEIGHT,
			legend: { show: false },
			cursor: { y: false, drag: { x: false, y: false }, points: { show: !whole } },
			scales: {
				x: { range: [times[0] - seconds / 2, times.at(-1) + seconds / 2] },
				y: { range: (_, __, max) => [0, Math.max(whole ? 4 : 100, max * 1.1)] },
			},
			series: [{}, ...this.keys.map((key) => ({ ...(whole ? bars : lines)(this.color(key), key) }))],
			axes: [
				{ ...axis, size: 35, space: 55, incrs: [1, 2, 3, 6, 12, 24, 48].map((hours) => hours * HOUR), values: (_, splits) => splits.map(formatTick) },
				{ ...axis, size: 60, ...(whole ? { incrs: [1, 2, 5].flatMap((n) => [0, 1, 2, 3, 4, 5, 6, 7, 8].map((power) => n * 10 ** power)).sort((a, b) => a - b) } : {}), values: (_, splits) => splits.map(this.format) },
			],
			hooks: { setCursor: [({ cursor }) => this.onPoint(cursor.idx ?? null)] },
		};
	}

	/** The theme's colour, which the legend has by panels.css. */
	color(key) {
		return getComputedStyle(this.el.closest("figure").querySelector(".modelriver-swatch." + key)).backgroundColor;
	}
}

/** Failed and rejected ones stand side by side in front of what was received. */
function bars(color, key) {
	const paths = window.uPlot.paths.bars({
		received: { size: [0.8, 40], align: 0 }, failed: { size: [0.3, 15], align: -1 }, rejected: { size: [0.3, 15], align: 1 },
	}[key]);
	return { paths, fill: color, stroke: color, width: 0, points: { show: false } };
}

function lines(color, key) {
	return { stroke: color, width: 2, dash: key === "p95" ? [6, 4] : undefined, points: { show: true, size: 6, fill: color } };
}

/** The hour, or the day at midnight. */
function formatTick(seconds) {
	const date = new Date(seconds * 1000);
	if (date.getHours() || date.getMinutes()) return date.toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit", hour12: false });
	return date.toLocaleDateString(undefined, { day: "numeric", month: "short" });
}
