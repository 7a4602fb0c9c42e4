// The tooltip of a chart, for the pointer and for the keyboard. Knows points, not kinds of charts.
//
// A point is `{box: {x, y, width, height}, title, lines: [{name, text, color}], dots: [{x, y, color}]}` in the drawing's
// own coordinates. `nearest` is "x" if the pointer's column counts, or "box" if it must be inside. `step` says how far the
// arrow keys go: `{x, y}` in points.
import {html, svg as make} from "./svg.js";

export function interact({plot, svg, live, points, nearest = "box", step = {x: 1, y: 1}}, before) {
  const mark = make("g", {class: "highlight", "pointer-events": "none"});
  const tip = html("div", {class: "tip", hidden: ""});
  let current = before.current ?? null;
  let shown = false;
  svg.append(mark);
  plot.append(tip);
  svg.style.touchAction = "pan-y";

  function show(index, speak) {
    current = index;
    shown = true;
    const {box, title, lines, dots = []} = points[index];
    mark.replaceChildren(
      dots.length
        ? make("line", {x1: dots[0].x, x2: dots[0].x, y1: box.y, y2: box.y + box.height, class: "rule"})
        : make("rect", {...box, rx: 2, class: "box"}),
      ...dots.map(({x, y, color}) => make("circle", {cx: x, cy: y, r: 4, fill: color, class: "dot"}))
    );
    tip.replaceChildren(html("strong", {}, title), ...lines.map(line));
    tip.hidden = false;
    place(box);
    if (speak) live.textContent = [title, ...lines.map(({name, text}) => `${name}: ${text}`)].join(", ");
  }

  /** Beside the point, on the side with more room. It never leaves the plot's width, so it cannot widen the page. */
  function place(box) {
    const [room, frame] = [plot.getBoundingClientRect(), svg.getBoundingClientRect()];
    const scale = frame.width / svg.viewBox.baseVal.width;
    // A point that is a whole row has no side, so the tooltip goes below or above it.
    if (box.width > svg.viewBox.baseVal.width / 2) {
      const [over, below] = [box.y * scale - tip.offsetHeight - 6, (box.y + box.height) * scale + 6];
      tip.style.left = `${Math.max(0, Math.min(room.width - tip.offsetWidth, room.width * 0.4))}px`;
      tip.style.top = `${frame.top - room.top + (below + tip.offsetHeight > frame.height && over > 0 ? over : below)}px`;
      return;
    }
    const left = frame.left - room.left + box.x * scale;
    const right = left + box.width * scale;
    const beside = room.width - right > left ? right + 10 : left - tip.offsetWidth - 10;
    tip.style.left = `${Math.max(0, Math.min(room.width - tip.offsetWidth, beside))}px`;
    tip.style.top = `${Math.max(0, frame.top - room.top + Math.min(box.y * scale, frame.height - tip.offsetHeight))}px`;
  }

  function hide() {
    shown = false;
    mark.replaceChildren();
    tip.hidden = true;
  }

  function under(event) {
    const frame = svg.getBoundingClientRect();
    const scale = svg.viewBox.baseVal.width / frame.width;
    const [x, y] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    if (nearest === "box") return points.findIndex(({box}) => inside(x, box.x, box.width) && inside(y, box.y, box.height));
    const far = points.map(({box}) => Math.abs(box.x + box.width / 2 - x));
    const index = far.indexOf(Math.min(...far));
    const reach = Math.max(24, points[index].box.width / 2);
    return far[index] <= reach ? index : -1;
  }

  function point(event) {
    const index = under(event);
    if (index < 0) hide();
    else if (index !== current || !shown) show(index, false);
  }

  svg.addEventListener("pointermove", point);
  svg.addEventListener("pointerdown", point);
  // A finger that leaves the glass still wants to read.
  svg.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hide());
  svg.addEventListener("blur", hide);
  svg.addEventListener("focus", () => svg.matches(":focus-visible") && show(Math.min(current ?? 0, points.length - 1), true));
  svg.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const last = points.length - 1;
    const at = current ?? 0;
    const next = {
      ArrowRight: at + step.x, ArrowLeft: at - step.x, ArrowDown: at + step.y, ArrowUp: at - step.y, Home: 0, End: last
    }[event.key];
    if (event.key === "Escape") hide();
    if (next === undefined) return;
    event.preventDefault();
    // A step over the edge stays where it is, except that the last short step still reaches the end.
    show(next < 0 || next > last ? at : next, true);
  });
  if (before.focused) svg.focus({preventScroll: true});
  return {state: () => ({current, focused: document.activeElement === svg})};
}

function inside(at, from, size) {
  return at >= from && at <= from + size;
}

function line({name, text, color}) {
  const swatch = html("i", color ? {style: `background:${color}`} : {class: "none"});
  return html("div", {}, swatch, html("span", {}, name), html("b", {}, text));
}
