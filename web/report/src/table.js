// Reads the table under a chart. The table is the only source of the numbers: what a chart says is what the table says.

/** The columns and rows of a table; `columns[0]` is the one with role x. */
export function readTable(table) {
  const columns = [...table.tHead.rows[0].cells].map((cell, index) => ({
    index,
    name: cell.textContent.trim(),
    role: cell.dataset.role,
    type: cell.dataset.type
  }));
  const rows = [...table.tBodies[0].rows].map((row) => {
    const cells = [...row.cells].map((cell, index) => ({
      text: cell.textContent.trim(),
      value: parse(cell.dataset.value ?? "", columns[index].type)
    }));
    return {x: cells[0].value, label: cells[0].text, cells};
  });
  return {
    columns,
    rows,
    x: columns[0],
    series: columns.filter((column) => column.role === "series"),
    notes: columns.filter((column) => column.role === "note")
  };
}

/** A cell's value by its column's type; null if the cell is empty. */
function parse(value, type) {
  if (type === "text" || type === undefined) return value;
  if (value === "") return null;
  if (type === "date") {
    // Without a time of day, it is one in UTC.
    const date = new Date(value);
    // Without its date, a row would be drawn somewhere else.
    if (Number.isNaN(date.getTime())) throw new Error(`not a date: ${value}`);
    return date;
  }
  const number = Number(value);
  return Number.isFinite(number) ? number : null;
}
