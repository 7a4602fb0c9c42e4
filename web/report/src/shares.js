// Horizontal rows of shares that fill 100 %, with one note, such as the average, at the right.
import {axisX, axisY, barX, gridX, plot, stackX, text} from "@observablehq/plot";
import {colors} from "./palette.js";
import {ROW, rowMargins, rowPoints} from "./ranked.js";
import {STYLE, valueOf} from "./rows.js";
import {legend, textWidth} from "./svg.js";

export function shares(data, {width, scheme}) {
  const {rows, series, notes} = data;
  const paint = colors(scheme, series.length);
  const note = notes.find(({name, type}) => name === "Average" || type === "rating");
  const values = rows.map((row) => (note ? row.cells[note.index].text : ""));
  const {names, left, right: needed} = rowMargins(data, width, values);
  const right = note ? Math.max(needed, Math.ceil(textWidth(note.name)) + 10) : needed;
  const at = rows.map((_, index) => index);
  const stacked = series.flatMap((column, index) => at.flatMap((row) => {
    const value = valueOf(rows[row], column);
    return value ? [{row, value, color: paint[index]}] : [];
  }));
  const ticks = width - left - right > 200 ? [0, 0.25, 0.5, 0.75, 1] : [0, 0.5, 1];
  const svg = plot({
    width, height: 24 + rows.length * ROW + 22, style: STYLE,
    marginLeft: left, marginRight: right, marginTop: 24, marginBottom: 22,
    x: {domain: [0, 1]},
    y: {type: "band", domain: at, paddingInner: 0.3, paddingOuter: 0.15},
    marks: [
      gridX(ticks, {className: "grid"}),
      axisX(ticks, {tickFormat: (tick) => `${tick * 100} %`, tickSize: 0, label: null}),
      axisY(at, {tickFormat: (index) => names[index], tickSize: 0, label: null, className: "names"}),
      barX(stacked, stackX({x: "value", y: "row", fill: "color", offset: "normalize", insetRight: 1, className: "marks"})),
      ...(note ? [
        text(at, {frameAnchor: "right", dx: right - 2, y: (index) => index, text: (index) => values[index], textAnchor: "end", className: "values"}),
        text([note.name], {frameAnchor: "top-right", dx: right - 2, dy: -18, textAnchor: "end", className: "head"})
      ] : [])
    ]
  });
  const key = legend(series.map(({name}, index) => ({name, color: paint[index]})));
  return {svg, points: rowPoints(data, svg, width, paint), legend: key};
}
