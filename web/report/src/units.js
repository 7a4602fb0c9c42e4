// How axes write numbers, shares and durations, and which ticks they have.
import {max, min, tickStep} from "d3";

const plain = new Intl.NumberFormat("en", {maximumFractionDigits: 2});
const MINUTE = 60, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const DURATIONS = [
  1, 2, 5, 10, 20, 30, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY, 100 * DAY
];
const DURATION_DECADES = [0.1, 1, 10, MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, DAY, 7 * DAY, 30 * DAY, 365 * DAY];

export function formatCount(value) {
  if (value >= 1e7) return `${plain.format(value / 1e6)}M`;
  if (value >= 1e5) return `${plain.format(value / 1e3)}k`;
  return plain.format(value);
}

function formatDuration(seconds) {
  // 80 min says more than 1.33 h.
  for (const [size, unit] of [[DAY, "d"], [HOUR, "h"], [MINUTE, "min"]]) {
    if (seconds >= size && Number.isInteger((seconds / size) * 2)) return `${plain.format(seconds / size)} ${unit}`;
  }
  return `${plain.format(seconds)} s`;
}

/** What an axis writes for a value of a type. */
export function formatOf(type) {
  if (type === "percent") return (value) => `${plain.format(value * 100)} %`;
  if (type === "seconds") return formatDuration;
  return formatCount;
}

/** A value axis: `{domain, ticks, format, log}`. */
export function valueAxis(type, values, options = {}) {
  return {format: formatOf(type), ...axisOf(type, values, options)};
}

function axisOf(type, values, {log = false, count = 5}) {
  const known = values.filter((value) => value !== null);
  const top = max(known) ?? 0;
  if (type === "percent") return {domain: [0, Math.max(1, top)], ticks: [0, 0.25, 0.5, 0.75, 1]};
  if (type === "rating") return {domain: [1, 5], ticks: [1, 2, 3, 4, 5]};
  if (log) return logAxis(type, known);
  if (type === "seconds") return stepped(top, DURATIONS.find((step) => top / step <= count) ?? 365 * DAY);
  // Half a conversation is none, so small counts have whole ticks.
  return stepped(top, Math.max(type === "count" ? 1 : 0, niceStep(top, count)));
}

const niceStep = (top, count) => tickStep(0, top || 1, count);

function stepped(top, step) {
  const steps = Math.max(1, Math.ceil(top / step - 1e-9));
  return {domain: [0, steps * step], ticks: Array.from({length: steps + 1}, (_, index) => index * step)};
}

/** A logarithmic axis from the decade below the least value to the one above the greatest. Zero is drawn at its foot. */
function logAxis(type, values) {
  const positive = values.filter((value) => value > 0);
  const [least, most] = [min(positive) ?? 1, max(positive) ?? 10];
  const decades = type === "seconds" ? DURATION_DECADES : Array.from({length: 19}, (_, power) => 10 ** (power - 3));
  const from = decades.findLastIndex((decade) => decade <= least);
  const to = decades.findIndex((decade) => decade >= most);
  const ticks = decades.slice(Math.max(0, from), to < 0 ? undefined : Math.max(to, from + 1) + 1);
  return {domain: [Math.min(ticks[0], least), Math.max(ticks.at(-1), most)], ticks, log: true};
}
