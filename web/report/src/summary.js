// One or two sentences of what a chart shows, for people who hear the page.

const NAMES = {
  "stacked-bars": "Bar chart", lines: "Line chart", ranked: "Ranked bars", "ranked-shares": "Bars of shares",
  heatmap: "Heat map", calendar: "Calendar"
};
const HINT = "The arrow keys move through the points. The table below has all numbers.";

export function summary({chart}, data) {
  const {rows, series} = data;
  const range = rows.length === 1 ? rows[0].label : `${rows[0].label} to ${rows.at(-1).label}`;
  let said;
  if (chart === "heatmap") said = [extremes(cells(rows, series, (row, column) => `${row.label}, ${column.name}`))];
  else if (chart === "ranked" || chart === "ranked-shares") said = [`${rows.length} rows`, ...rows.slice(0, 3).map((row) => top(row, data))];
  else {
    said = [range, ...series.map((column) => overTime(column, cells(rows, [column], (row) => row.label)))];
    const state = data.columns.find(({role}) => role === "state");
    for (const name of state ? ["missing", "odd"] : []) {
      said.push(`${name}: ${rows.filter((row) => row.cells[state.index].value === name).length}`);
    }
  }
  return [`${NAMES[chart]}: ${said.filter(Boolean).join("; ")}.`, HINT].join(" ");
}

function cells(rows, series, label) {
  return rows.flatMap((row) => series.map((column) => ({...row.cells[column.index], label: label(row, column)})))
    .filter(({value}) => value !== null);
}

function overTime(column, known) {
  if (known.length === 0) return `${column.name}: no values`;
  return `${column.name}: first ${known[0].text}, last ${known.at(-1).text}, ${extremes(known)}`;
}

function extremes(known) {
  if (known.length === 0) return "no values";
  const least = known.reduce((one, other) => (other.value < one.value ? other : one));
  const most = known.reduce((one, other) => (other.value > one.value ? other : one));
  return `lowest ${least.text} (${least.label}), highest ${most.text} (${most.label})`;
}

function top(row, {series, notes}) {
  const shown = series.length > 2 ? notes : series;
  return `${row.label}: ${shown.map(({index}) => row.cells[index].text).filter(Boolean).join(", ")}`;
}
