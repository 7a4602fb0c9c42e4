// Ticks and spans of time axes. Everything is UTC.
import {utcDay, utcMonth, utcTicks} from "d3";

const MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const STEPS = {day: [utcDay, 1], week: [utcDay, 7], month: [utcMonth, 1]};

/** The moment one step after a date. */
export function after(date, step) {
  const [interval, count] = STEPS[step] ?? STEPS.day;
  return interval.offset(date, count);
}

/** The date as people write it: 5 Feb, or Feb for a month. */
export function shortDate(date, step) {
  const month = MONTHS[date.getUTCMonth()];
  return step === "month" ? month : `${date.getUTCDate()} ${month}`;
}

export function monthName(date) {
  return MONTHS[date.getUTCMonth()];
}

/** The day of the week from 0, Monday, to 6. */
export function weekday(date) {
  return (date.getUTCDay() + 6) % 7;
}

export function mondayOf(date) {
  return utcDay.offset(utcDay.floor(date), -weekday(date));
}

/** Ticks from the first to the last date over a width: each day, week or month if there is room for it, else round ones.
 * The first tick, and the first of each year, has the year below it. */
export function dateTicks(dates, step, width) {
  const room = Math.max(2, Math.floor(width / 64));
  const [interval, count] = STEPS[step] ?? STEPS.day;
  // Rows may be missing between two dates.
  const all = interval.range(dates[0], after(dates.at(-1), step), count);
  let ticks = all;
  if (all.length > room) {
    ticks = utcTicks(dates[0], dates.at(-1), room);
    // Weeks have ticks where they begin; hours have none.
    ticks = step === "week" ? all : ticks.filter((tick) => +utcDay.floor(tick) === +tick);
    const every = Math.ceil(ticks.length / room);
    ticks = ticks.filter((_, index) => index % every === 0);
  }
  const labels = new Map();
  let year = null;
  for (const tick of ticks) {
    const label = shortDate(tick, step);
    labels.set(+tick, tick.getUTCFullYear() === year ? label : `${label}\n${tick.getUTCFullYear()}`);
    year = tick.getUTCFullYear();
  }
  return {ticks, format: (tick) => labels.get(+tick) ?? ""};
}
