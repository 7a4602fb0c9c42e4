// Bars over dates or over classes; several series are stacked.
import {axisX, axisY, barY, gridY, plot, rectY, ruleY, stackY} from "@observablehq/plot";
import {max, min, sum} from "d3";
import {after, dateTicks} from "./dates.js";
import {colors} from "./palette.js";
import {STYLE, axisName, rowLines, valueOf} from "./rows.js";
import {legend, shorten, textWidth} from "./svg.js";
import {valueAxis} from "./units.js";

export function bars(data, options) {
  const {width, scheme, step, unit} = options;
  const {rows, series} = data;
  const paint = colors(scheme, series.length);
  const dated = data.x.type === "date";
  const totals = rows.map((row) => sum(series, (column) => valueOf(row, column) ?? 0));
  const axis = valueAxis(series[0].type, totals);
  const margin = {left: Math.ceil(max(axis.ticks, (tick) => textWidth(axis.format(tick)))) + 12, right: 8, top: 26};
  const inner = width - margin.left - margin.right;
  // One datum for each bar, in the table's order.
  const stacked = series.flatMap((column, index) => rows.flatMap((row, at) => {
    const value = valueOf(row, column);
    return value === null ? [] : [{at, row, value, color: paint[index]}];
  }));
  const band = dated ? stepWidth(rows, step, inner) : inner / rows.length;
  // Few bars stay slim. Many have no space between them, because a space below one pixel only makes them pale.
  // None is thinner than a pixel.
  const inset = band > 72 ? (band - 64) / 2 : band > 6 ? 1 : band > 4.5 ? 0.5 : Math.min(0, (band - 1) / 2);
  const common = {y: "value", fill: "color", className: band > 4.5 ? "marks" : "marks dense"};
  const xAxis = dated ? overDates(rows, step, inner) : overClasses(data, inner);
  const svg = plot({
    width, height: options.height, style: STYLE,
    marginLeft: margin.left, marginRight: margin.right, marginTop: margin.top, marginBottom: dated ? 38 : 44,
    x: xAxis.scale,
    y: {domain: axis.domain},
    marks: [
      gridY(axis.ticks, {className: "grid"}),
      axisY(axis.ticks, {text: axis.format, tickSize: 0, label: axisName(data, unit), labelArrow: "none", labelAnchor: "top"}),
      axisX(xAxis.ticks, {tickFormat: xAxis.format, tickSize: dated ? 4 : 0, label: xAxis.label, labelArrow: "none"}),
      dated
        ? rectY(stacked, stackY({
          ...common, x1: ({row}) => row.x, x2: ({row}) => after(row.x, step), insetLeft: inset, insetRight: inset
        }))
        : barY(stacked, stackY({...common, x: "at"})),
      ruleY([0], {className: "base"}),
      ...(options.marks?.(axis) ?? [])
    ]
  });
  const x = svg.scale("x");
  const points = rows.map((row, at) => {
    const from = x.apply(dated ? row.x : at);
    const to = dated ? x.apply(after(row.x, step)) : from + x.bandwidth;
    return {
      box: {x: from, y: margin.top, width: Math.max(1, to - from), height: svg.scale("y").range[0] - margin.top},
      title: row.label, lines: rowLines(data, row, paint)
    };
  });
  const key = series.map(({name}, index) => ({name, color: paint[index]}));
  return {svg, points, nearest: "x", legend: series.length > 1 ? legend(key) : options.legend};
}

/** The width of the shortest row's day, week or month. Dates may be missing, so the number of rows says nothing about it. */
function stepWidth(rows, step, inner) {
  const end = (row) => +after(row.x, step);
  return (min(rows, (row) => end(row) - row.x) * inner) / (end(rows.at(-1)) - rows[0].x);
}

function overDates(rows, step, inner) {
  const dates = rows.map((row) => row.x);
  const {ticks, format} = dateTicks(dates, step, inner);
  // A bar covers its day, week or month, and its name stands under its middle.
  const middles = new Map(ticks.map((tick) => [(+tick + +after(tick, step)) / 2, tick]));
  return {
    scale: {type: "utc", domain: [dates[0], after(dates.at(-1), step)]},
    ticks: [...middles.keys()].map((middle) => new Date(middle)),
    format: (middle) => format(middles.get(+middle)),
    label: null
  };
}

/** Classes that have no room for their names show every second, third … name. */
function overClasses(data, inner) {
  const band = inner / data.rows.length;
  const names = data.rows.map(({label}) => shorten(label, Math.max(band - 4, 60)));
  const every = Math.max(1, Math.ceil((max(names, (name) => textWidth(name)) + 6) / band));
  return {
    scale: {type: "band", domain: data.rows.map((_, at) => at), paddingInner: 0.15, paddingOuter: 0.1},
    ticks: data.rows.map((_, at) => at).filter((at) => at % every === 0),
    format: (at) => names[at],
    label: data.x.name
  };
}
