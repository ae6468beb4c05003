// Where a problem of the service is, out of its words: "row 3, column 5", "box 2".

const PLACE = /row (\d+)(?:, column (\d+))?|column (\d+)|box (\d+)/g;

/** Cells, or else the row, column or box, that a problem's place and message name. */
export function placesOf({ place = "", message = "" }) {
  const named = [...`${place}; ${message}`.matchAll(PLACE)].map(([, row, column, alone, box]) => ({
    row: number(row),
    column: number(column ?? alone),
    box: number(box),
  }));
  const cells = named.filter((one) => one.row && one.column);
  return cells.length ? cells : named;
}

function number(text) {
  return text === undefined ? undefined : Number(text);
}
