// A calendar of weeks, Monday at the top. Missing days are hatched, odd days carry a mark. By month it is bars.
import {cell, dot, plot, rectY, text} from "@observablehq/plot";
import {utcDay} from "d3";
import {bars} from "./bars.js";
import {classes} from "./classes.js";
import {after, mondayOf, monthName, weekday} from "./dates.js";
import {STYLE, rowLines, valueOf} from "./rows.js";
import {hatch, legend, svg as make} from "./svg.js";

const [LEAST, MOST, LEFT] = [13, 26, 36];
// The rows of a block: names of months, seven days, space.
const BLOCK = 9;
const oddKey = {
  name: "odd",
  mark: () => [
    make("rect", {x: 1, y: 1, width: 10, height: 10, rx: 2, class: "odd-box"}),
    make("circle", {cx: 6, cy: 6, r: 2.5, class: "odd-dot"})
  ]
};
const missingKey = (paint) => ({
  name: "missing",
  mark: () => [make("rect", {x: 0.5, y: 0.5, width: 11, height: 11, rx: 2, fill: paint, class: "missing"})]
});

export function calendar(data, options) {
  const [column] = data.series;
  const state = data.columns.find(({role}) => role === "state");
  const stateOf = (row) => (state ? row.cells[state.index].value : "");
  const {defs, paint} = hatch();
  const key = [];
  if (data.rows.some((row) => stateOf(row) === "missing")) key.push(missingKey(paint));
  if (data.rows.some((row) => stateOf(row) === "odd")) key.push(oddKey);
  const drawn = options.step === "month"
    ? months(data, options, stateOf, paint, key)
    : weeks(data, options, column, stateOf, paint, key);
  drawn.svg.prepend(defs);
  data.rows.forEach((row, at) => {
    if (stateOf(row)) drawn.points[at].title += `, ${stateOf(row)}`;
  });
  return drawn;
}

function months(data, options, stateOf, paint, key) {
  const of = (wanted) => data.rows.filter((row) => stateOf(row) === wanted);
  const middle = ({x}) => new Date((+x + +after(x, "month")) / 2);
  return bars(data, {
    ...options,
    legend: key.length ? legend(key) : null,
    marks: ({domain}) => [
      rectY(of("missing"), {
        x1: "x", x2: ({x}) => after(x, "month"), y1: 0, y2: domain[1], fill: paint, insetLeft: 1, insetRight: 1, className: "missing"
      }),
      rectY(of("odd"), {
        x1: "x", x2: ({x}) => after(x, "month"), y1: 0, y2: (row) => valueOf(row, data.series[0]) ?? 0, insetLeft: 1, insetRight: 1,
        className: "odd-box"
      }),
      dot(of("odd"), {x: middle, y: (row) => valueOf(row, data.series[0]) ?? 0, dy: -7, r: 3.5, className: "odd-dot"})
    ]
  });
}

function weeks(data, {width}, column, stateOf, paint, key) {
  const {rows} = data;
  const start = mondayOf(rows[0].x);
  const weekOf = (date) => Math.floor(utcDay.count(start, date) / 7);
  const count = weekOf(rows.at(-1).x) + 1;
  const room = width - LEFT - 2;
  // A range that is wider than the page goes on in another block below.
  const blocks = Math.ceil(count / Math.floor(room / LEAST));
  const across = Math.ceil(count / blocks);
  const size = Math.min(MOST, Math.floor(room / across));
  // An odd day would stretch the classes until all others look alike.
  const {colorOf, key: scaleKey} = classes(rows.filter((row) => !stateOf(row)).map((row) => valueOf(row, column)), column.type);
  const placed = rows.map((row) => {
    const week = weekOf(row.x);
    return {row, x: week % across, y: Math.floor(week / across) * BLOCK + 1 + weekday(row.x)};
  });
  const of = (wanted) => placed.filter(({row}) => stateOf(row) === wanted);
  const box = {x: "x", y: "y", rx: 2, inset: 1};
  const days = Array.from({length: blocks}, (_, block) => ["Mon", "Wed", "Fri"].map((name, at) => ({name, y: block * BLOCK + 1 + at * 2}))).flat();
  const svg = plot({
    width: LEFT + across * size + 2, height: (blocks * BLOCK - 1) * size, style: STYLE,
    marginLeft: LEFT, marginRight: 2, marginTop: 0, marginBottom: 0,
    x: {type: "band", domain: Array.from({length: across}, (_, x) => x), padding: 0, round: false, axis: null},
    y: {type: "band", domain: Array.from({length: blocks * BLOCK - 1}, (_, y) => y), padding: 0, round: false, axis: null},
    marks: [
      cell(placed.filter(({row}) => stateOf(row) !== "missing"), {...box, fill: ({row}) => colorOf(valueOf(row, column)), className: "marks cell"}),
      cell(of("missing"), {...box, inset: 1.5, fill: paint, className: "missing"}),
      cell(of("odd"), {...box, inset: 1.5, className: "odd-box"}),
      dot(of("odd"), {x: "x", y: "y", r: Math.min(3.5, size / 5), className: "odd-dot"}),
      text(days, {frameAnchor: "left", dx: -LEFT, y: "y", text: "name", textAnchor: "start"}),
      text(monthLabels(placed, across), {x: "x", y: "y", text: "name", textAnchor: "start", dx: -size / 2 + 1})
    ]
  });
  svg.classList.add("fixed");
  const [x, y] = [svg.scale("x"), svg.scale("y")];
  const points = placed.map((day) => ({
    box: {x: x.apply(day.x) + 1, y: y.apply(day.y) + 1, width: size - 2, height: size - 2},
    title: day.row.label,
    lines: rowLines(data, day.row, [colorOf(valueOf(day.row, column))])
  }));
  return {svg, points, step: {x: 7, y: 1}, legend: legend([...scaleKey, ...key])};
}

/** A month's name stands over the week of its first day, and over the first week of a block if there is room. */
function monthLabels(placed, across) {
  const labels = new Map();
  for (const {row, x, y} of placed) {
    const head = Math.floor(y / BLOCK) * BLOCK;
    if (row.x.getUTCDate() === 1) {
      // January is the year's name.
      const name = row.x.getUTCMonth() === 0 ? String(row.x.getUTCFullYear()) : monthName(row.x);
      labels.set(`${head},${x}`, {x, y: head, name});
    } else if (!labels.has(`${head},0`) && x === 0) {
      labels.set(`${head},0`, {x, y: head, name: monthName(row.x)});
    }
  }
  // The last column has no room for a name.
  return [...labels.values()].filter(({x, y}) => (x > 0 ? across < 3 || x < across - 1 : ![1, 2].some((next) => labels.has(`${y},${next}`))));
}
