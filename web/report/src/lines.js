// Lines over dates. A missing value is a gap; a value between two gaps is a dot. Lines differ in colour and in dashes.
import {axisX, axisY, dot, gridY, lineY, plot} from "@observablehq/plot";
import {extent, max} from "d3";
import {after, dateTicks} from "./dates.js";
import {DASHES, colors} from "./palette.js";
import {STYLE, axisName, rowLines, valueOf} from "./rows.js";
import {legend, textWidth} from "./svg.js";
import {valueAxis} from "./units.js";

export function lines(data, {width, scheme, step, scale, unit, height}) {
  const {rows, series} = data;
  const type = series[0].type;
  const paint = colors(scheme, series.length);
  const values = series.flatMap((column) => rows.map((row) => valueOf(row, column)));
  const axis = valueAxis(type, values, {log: scale === "log"});
  const margin = {left: Math.ceil(max(axis.ticks, (tick) => textWidth(axis.format(tick)))) + 12, right: 12, top: 26};
  const [first, last] = extent(rows, (row) => row.x);
  // One date alone still needs a width.
  const domain = +first === +last ? [after(first, "day") - 2 * 864e5, after(last, "day")].map((at) => new Date(at)) : [first, last];
  const {ticks, format: dateFormat} = dateTicks(rows.map((row) => row.x), step, width - margin.left - margin.right);
  const shown = (row, column) => {
    const value = row && valueOf(row, column);
    return value === null || value === undefined ? NaN : axis.log ? Math.max(value, axis.domain[0]) : value;
  };
  const isKnown = (at, column) => rows[at] !== undefined && !Number.isNaN(shown(rows[at], column));
  const svg = plot({
    width, height, style: STYLE,
    marginLeft: margin.left, marginRight: margin.right, marginTop: margin.top, marginBottom: 38,
    x: {type: "utc", domain},
    y: {type: axis.log ? "log" : "linear", domain: axis.domain},
    marks: [
      gridY(axis.ticks, {className: "grid"}),
      axisY(axis.ticks, {text: axis.format, tickSize: 0, label: axisName(data, unit), labelArrow: "none", labelAnchor: "top"}),
      axisX(ticks, {tickFormat: dateFormat, tickSize: 4, label: null}),
      ...series.flatMap((column, index) => [
        lineY(rows, {
          x: "x", y: (row) => shown(row, column), stroke: paint[index], strokeWidth: 2, className: "marks",
          strokeDasharray: series.length > 1 ? DASHES[index % DASHES.length] : "none"
        }),
        dot(rows.filter((_, at) => isKnown(at, column) && !isKnown(at - 1, column) && !isKnown(at + 1, column)), {
          x: "x", y: (row) => shown(row, column), fill: paint[index], r: 2.5, className: "alone"
        })
      ])
    ]
  });
  const [x, y] = [svg.scale("x"), svg.scale("y")];
  const points = rows.map((row) => ({
    box: {x: x.apply(row.x), y: margin.top, width: 0, height: y.range[0] - margin.top},
    title: row.label,
    lines: rowLines(data, row, paint),
    dots: [{x: x.apply(row.x), y: -99, color: "none"}].concat(series.flatMap((column, index) =>
      valueOf(row, column) === null ? [] : [{x: x.apply(row.x), y: y.apply(shown(row, column)), color: paint[index]}]))
  }));
  const key = series.map(({name}, index) => ({name, color: paint[index], dash: DASHES[index % DASHES.length]}));
  return {svg, points, nearest: "x", legend: series.length > 1 ? legend(key) : null};
}
