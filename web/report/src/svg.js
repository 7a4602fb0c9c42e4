// Small pieces of SVG and HTML that Plot does not draw: highlights, patterns, legends.

const SVG = "http://www.w3.org/2000/svg";

export function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** An HTML element. Text is always set as text, because tag names come from other people. */
export function html(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

const measure = document.createElement("canvas").getContext("2d");

/** The width of text at the size of the chart's labels. */
export function textWidth(text, size = 12) {
  measure.font = `${size}px system-ui, sans-serif`;
  return measure.measureText(text).width;
}

/** Text cut to a width, with an ellipsis if anything is missing. */
export function shorten(text, width) {
  if (textWidth(text) <= width) return text;
  const characters = [...text];
  while (characters.length > 1 && textWidth(`${characters.join("").trimEnd()}\u2026`) > width) characters.pop();
  return `${characters.join("").trimEnd()}\u2026`;
}

/** A legend: `{name, color}`, with `dash` for a line, or `mark` for a class of its own. */
export function legend(entries) {
  return html("ul", {class: "legend"}, ...entries.map(({name, color, dash, mark}) => {
    const swatch = svg("svg", {class: "swatch", width: dash === undefined ? 12 : 26, height: 12, "aria-hidden": "true"});
    if (mark) swatch.append(...mark());
    else if (dash === undefined) swatch.append(svg("rect", {width: 12, height: 12, rx: 2, fill: color}));
    else {
      swatch.append(svg("line", {x1: 1, x2: 25, y1: 6, y2: 6, stroke: color, "stroke-width": 2.5, "stroke-dasharray": dash}));
    }
    return html("li", {}, swatch, name);
  }));
}

let patterns = 0;

/** A hatch for what is missing: returns the definition and the paint that refers to it. */
export function hatch() {
  const id = `hatch-${++patterns}`;
  const pattern = svg("pattern", {id, width: 5, height: 5, patternUnits: "userSpaceOnUse", patternTransform: "rotate(45)"},
    svg("line", {x1: 0, y1: 0, x2: 0, y2: 5, class: "hatch"}));
  return {defs: svg("defs", {}, pattern), paint: `url(#${id})`};
}
