// Colours by name. They are variables of report.css, so a chart follows the colour scheme and the paper without a redraw.

const CATEGORIES = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--c6)"];
export const DASHES = ["none", "7 4", "2 3", "10 3 2 3", "4 2", "12 4"];
export const HEAT = ["var(--h0)", "var(--h1)", "var(--h2)", "var(--h3)", "var(--h4)", "var(--h5)"];
const SCHEMES = {
  deflection: ["var(--good)", "var(--bad)", "var(--unknown)"],
  rating: ["var(--r1)", "var(--r2)", "var(--r3)", "var(--r4)", "var(--r5)"]
};

/** The colour of each series of a scheme. */
export function colors(scheme, count) {
  const own = SCHEMES[scheme] ?? CATEGORIES;
  return Array.from({length: count}, (_, index) => own[index % own.length]);
}
