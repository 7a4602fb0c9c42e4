// What a tooltip says of a row: its series in their colours, then its notes. The words are the table's own.

export function rowLines(data, row, colors) {
  return [
    ...data.series.map((column, index) => ({name: column.name, text: row.cells[column.index].text, color: colors[index]})),
    ...data.notes
      .filter(({role, index}) => role !== "state" && row.cells[index].text !== "")
      .map(({name, index}) => ({name, text: row.cells[index].text}))
  ];
}

export const valueOf = (row, column) => row.cells[column.index].value;

/** The name of a value axis. */
export function axisName(data, unit) {
  if (unit) return unit[0].toUpperCase() + unit.slice(1);
  if (data.series.length === 1) return data.series[0].name;
  return {percent: "Share", rating: "Rating, 1 to 5", seconds: "Duration"}[data.series[0].type] ?? "Count";
}

/** What all drawings share. */
export const STYLE = {background: "none", fontFamily: "inherit", fontSize: "12px", overflow: "visible"};
