// A grid of coloured cells: the table's rows by its series.
import {axisX, axisY, cell, plot} from "@observablehq/plot";
import {max} from "d3";
import {classes} from "./classes.js";
import {STYLE, axisName, valueOf} from "./rows.js";
import {legend, textWidth} from "./svg.js";

export function heatmap(data, {width, unit}) {
  const {rows, series} = data;
  const cells = rows.flatMap((row, at) => series.map((column, over) => ({row, at, column, over, value: valueOf(row, column)})));
  const {colorOf, key} = classes(cells.map(({value}) => value), series[0].type);
  const left = Math.ceil(max(rows, ({label}) => textWidth(label))) + 10;
  const band = (width - left - 2) / series.length;
  const every = [1, 2, 3, 4, 6, 12, 24].find((count) => count * band > max(series, ({name}) => textWidth(name)) + 8) ?? series.length;
  const height = Math.max(20, Math.min(30, band));
  const svg = plot({
    width, height: rows.length * height + 26, style: STYLE,
    marginLeft: left, marginRight: 2, marginTop: 2, marginBottom: 24,
    x: {type: "band", domain: series.map((_, over) => over), padding: 0.06},
    y: {type: "band", domain: rows.map((_, at) => at), padding: 0.06},
    marks: [
      axisX(series.map((_, over) => over).filter((over) => over % every === 0), {tickFormat: (over) => series[over].name, tickSize: 0, label: null}),
      axisY(rows.map((_, at) => at), {tickFormat: (at) => rows[at].label, tickSize: 0, label: null}),
      cell(cells, {x: "over", y: "at", fill: ({value}) => colorOf(value), rx: 2, className: "marks cell"})
    ]
  });
  const [x, y] = [svg.scale("x"), svg.scale("y")];
  const points = cells.map(({row, at, column, over}) => ({
    box: {x: x.apply(over), y: y.apply(at), width: x.bandwidth, height: y.bandwidth},
    title: `${row.label}, ${column.name}`,
    lines: [{name: unit ?? axisName(data), text: row.cells[column.index].text, color: colorOf(valueOf(row, column))}]
  }));
  return {svg, points, step: {x: 1, y: series.length}, legend: legend(key)};
}
