// Draws a chart over every table of the page that asks for one, and again whenever its width changes.
// Reads nothing but the page. Without this script the page shows the tables.
import {bars} from "./bars.js";
import {calendar} from "./calendar.js";
import {heatmap} from "./heatmap.js";
import {interact} from "./interact.js";
import {lines} from "./lines.js";
import {ranked} from "./ranked.js";
import {shares} from "./shares.js";
import {summary} from "./summary.js";
import {html} from "./svg.js";
import {readTable} from "./table.js";

const KINDS = {"stacked-bars": bars, lines, ranked, "ranked-shares": shares, heatmap, calendar};
// Paper has another width than the window, and the browser asks for the drawing before it lays the page out.
const PAPER = {wide: 690, narrow: 330, height: 200};
const HEIGHT = 240;

const live = html("div", {class: "visually-hidden", "aria-live": "polite"});
document.body.append(live);

const charts = new Map();
for (const figure of document.querySelectorAll("figure.chart")) {
  const [plot, table, draw] = [figure.querySelector(".plot"), figure.querySelector("table"), KINDS[figure.dataset.chart]];
  if (plot && draw && table?.tBodies[0]?.rows.length) charts.set(plot, chart(figure, plot, table, draw));
}
for (const table of document.querySelectorAll("table")) alignText(table);

/** Words stand at the left, numbers at the right. */
function alignText(table) {
  for (const [index, head] of [...(table.tHead?.rows[0]?.cells ?? [])].entries()) {
    if (head.dataset.type !== "text") continue;
    for (const row of table.tBodies[0]?.rows ?? []) row.cells[index]?.classList.add("text");
  }
}

/** One chart: `draw(width)` replaces what is in the figure's plot. */
function chart(figure, plot, table, draw) {
  const title = figure.querySelector("figcaption h3")?.textContent.trim() ?? "";
  let [data, label, drawn] = [null, "", null];
  return {
    plot,
    details: figure.querySelector("details"),
    width: 0,
    wide: figure.classList.contains("wide"),
    draw(width, height = HEIGHT) {
      data ??= readTable(table);
      label ||= `${title}. ${summary(figure.dataset, data)}`;
      const state = drawn?.state() ?? {};
      const {svg, legend, ...rest} = draw(data, {width, height, ...figure.dataset});
      for (const [key, value] of [["role", "img"], ["aria-label", label], ["tabindex", "0"]]) svg.setAttribute(key, value);
      plot.replaceChildren(...(legend ? [legend, svg] : [svg]));
      drawn = interact({plot, svg, live, ...rest}, state);
    }
  };
}

/** A chart that cannot be drawn gives way to its table, and the others are drawn all the same. */
function attempt(one, width, height) {
  try {
    one.draw(width, height);
  } catch (error) {
    console.error(error);
    resized.unobserve(one.plot);
    charts.delete(one.plot);
    one.plot.remove();
    one.details?.setAttribute("open", "");
  }
}

const resized = new ResizeObserver((entries) => {
  for (const {target, contentRect} of entries) {
    const width = Math.floor(contentRect.width);
    const one = charts.get(target);
    // Only the width decides. The height follows from the drawing, so it must never cause one.
    if (width < 1 || width === one.width) continue;
    one.width = width;
    attempt(one, width);
  }
});
for (const plot of charts.keys()) resized.observe(plot);

addEventListener("beforeprint", () => {
  for (const one of charts.values()) attempt(one, one.wide ? PAPER.wide : PAPER.narrow, PAPER.height);
});
addEventListener("afterprint", () => {
  for (const one of charts.values()) attempt(one, one.width || PAPER.narrow);
});
