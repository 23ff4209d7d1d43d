// The chart on the page "ModelRiver".

/** Nothing yet. */
export function chart() {}
