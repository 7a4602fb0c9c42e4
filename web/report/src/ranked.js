// Horizontal bars, longest names shortened, values at the right. A second series is a tick: the value before.
import {axisX, axisY, barX, gridX, plot, ruleX, text, tickX} from "@observablehq/plot";
import {max} from "d3";
import {colors} from "./palette.js";
import {STYLE, axisName, rowLines, valueOf} from "./rows.js";
import {legend, shorten, svg as make, textWidth} from "./svg.js";
import {valueAxis} from "./units.js";

export const ROW = 26;

/** The margins of a chart of rows: names at the left, values at the right. */
export function rowMargins(data, width, values) {
  const room = Math.min(240, width * 0.38);
  const names = data.rows.map(({label}) => shorten(label, room));
  return {
    names,
    left: Math.ceil(max(names, (name) => textWidth(name))) + 12,
    right: Math.ceil(max(values, (value) => textWidth(value, 12.5))) + 14
  };
}

/** One point for each row, as wide as the drawing. */
export function rowPoints(data, svg, width, paint) {
  const y = svg.scale("y");
  return data.rows.map((row, at) => ({
    box: {x: 0.5, y: y.apply(at) - (y.step - y.bandwidth) / 2 + 0.5, width: width - 1, height: y.step - 1},
    title: row.label,
    lines: rowLines(data, row, paint)
  }));
}

/** An axis that ends a little after the longest bar, because bars need no round end. It has two ticks at least. */
function barAxis(type, values, count) {
  const most = (max(values) ?? 0) * 1.02;
  for (;; count += 1) {
    const axis = valueAxis(type, values, {count});
    if (most === 0 || type === "percent" || type === "rating") return axis;
    const ticks = axis.ticks.filter((tick) => tick <= most);
    if (ticks.length > 1 || count > 9) return {...axis, domain: [axis.domain[0], most], ticks};
  }
}

export function ranked(data, {width, scheme, unit}) {
  const {rows, series} = data;
  const [now, before] = series;
  const paint = [colors(scheme, 1)[0], "var(--text)"];
  const values = rows.map((row) => row.cells[now.index].text);
  const {names, left, right} = rowMargins(data, width, values);
  const at = rows.map((_, index) => index);
  const inner = width - left - right;
  const known = rows.flatMap((row) => series.map((column) => valueOf(row, column)));
  const axis = barAxis(now.type, known, Math.max(1, Math.min(5, Math.floor(inner / 80))));
  const from = axis.domain[0];
  const svg = plot({
    width, height: 8 + rows.length * ROW + 40, style: STYLE,
    marginLeft: left, marginRight: right, marginTop: 8, marginBottom: 40,
    x: {domain: axis.domain},
    y: {type: "band", domain: at, paddingInner: 0.3, paddingOuter: 0.15},
    marks: [
      gridX(axis.ticks, {className: "grid"}),
      axisX(axis.ticks, {text: axis.format, tickSize: 0, label: axisName({series: [now]}, unit), labelArrow: "none", labelAnchor: "center"}),
      axisY(at, {tickFormat: (index) => names[index], tickSize: 0, label: null, className: "names"}),
      barX(at.filter((index) => valueOf(rows[index], now) !== null), {
        x1: from, x2: (index) => valueOf(rows[index], now), y: (index) => index, fill: paint[0], className: "marks"
      }),
      ...(before ? [tickX(at.filter((index) => valueOf(rows[index], before) !== null), {
        x: (index) => valueOf(rows[index], before), y: (index) => index, stroke: paint[1], strokeWidth: 2.5, className: "before",
        insetTop: -2, insetBottom: -2
      })] : []),
      ruleX([from], {className: "base"}),
      text(at, {
        frameAnchor: "right", dx: right - 2, y: (index) => index, text: (index) => values[index], textAnchor: "end", className: "values"
      })
    ]
  });
  const tick = () => [make("line", {x1: 6, x2: 6, y1: 0, y2: 12, stroke: paint[1], "stroke-width": 2.5})];
  const key = before && legend([{name: now.name, color: paint[0]}, {name: before.name, mark: tick}]);
  return {svg, points: rowPoints(data, svg, width, paint), legend: key};
}
