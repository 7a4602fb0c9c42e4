// Classes of a colour scale: few, with round limits, so that a legend can name them.
import {extent, ticks} from "d3";
import {HEAT} from "./palette.js";
import {svg} from "./svg.js";
import {formatOf} from "./units.js";

/** Sorts values into at most five classes; zero is a class of its own. Returns `{colorOf, key}`. */
export function classes(values, type) {
  const format = formatOf(type);
  const known = values.filter((value) => value !== null);
  const [least, most] = extent(known.filter((value) => value > 0));
  let limits = [];
  for (let count = 5; least !== undefined; count -= 1) {
    limits = ticks(least, most, count).filter((limit) => limit > least && limit <= most);
    if (limits.length <= 4) break;
  }
  // The strongest colour is always the greatest values'.
  const colorAt = (index) => HEAT[limits.length === 0 ? 3 : 1 + Math.round((index * 4) / limits.length)];
  const key = [];
  if (known.includes(0)) key.push({name: format(0), color: HEAT[0]});
  if (least !== undefined && limits.length === 0) key.push({name: format(most), color: colorAt(0)});
  limits.forEach((limit, index) => {
    key.push({name: index === 0 ? `below ${format(limit)}` : `${format(limits[index - 1])} \u2013 ${format(limit)}`, color: colorAt(index)});
  });
  if (limits.length) key.push({name: `${format(limits.at(-1))} or more`, color: colorAt(limits.length)});
  return {
    colorOf: (value) => (value === null ? "none" : value <= 0 ? HEAT[0] : colorAt(limits.filter((limit) => value >= limit).length)),
    key: key.map((entry) => ({...entry, mark: () => [svg("rect", {x: 0.5, y: 0.5, width: 11, height: 11, rx: 2, fill: entry.color, class: "cell"})]}))
  };
}
