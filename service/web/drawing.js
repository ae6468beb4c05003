// A maze as it looks: walls, the path as a line, S and G, and what is marked.

export const WALL = "#", FLOOR = " ", START = "S", GOAL = "G", PATH = "o";

const MOST_FRAME = 6; // CSS pixels

/** Draw `cells` and the `answer` to them, if any; `at` is where the keys are, null without focus. */
export function paint(canvas, { cells, answer, changed, faulty, at }) {
  const [rows, columns] = [cells.length, cells[0].length];
  canvas.style.aspectRatio = `${columns} / ${rows}`;
  canvas.style.width = `min(100%, ${34 * (columns / rows)}rem)`;
  const width = canvas.clientWidth;
  if (!width) return;
  // A cell is a whole number of the screen's dots, so that no seams show.
  const side = Math.max(1, Math.ceil((width * devicePixelRatio) / columns));
  canvas.width = side * columns;
  canvas.height = side * rows;
  const style = getComputedStyle(canvas);
  const colour = (name) => style.getPropertyValue(`--${name}`);
  const context = canvas.getContext("2d");
  const each = (visit) => cells.forEach((row, r) => row.forEach((cell, c) => visit(cell, r, c)));
  const fill = (name, chosen) => {
    context.fillStyle = colour(name);
    each((cell, r, c) => {
      if (chosen(cell, r, c)) context.fillRect(c * side, r * side, side, side);
    });
  };
  context.fillStyle = colour("floor");
  context.fillRect(0, 0, canvas.width, canvas.height);
  fill("wall", (cell) => cell === WALL);
  fill("changed", (_, r, c) => changed(r, c));
  context.fillStyle = colour("answer");
  for (const [x, y, w, h] of path(cells, answer, side)) context.fillRect(x, y, w, h);
  fill("start", (cell) => cell === START);
  fill("goal", (cell) => cell === GOAL);
  fill("fault", isUnknown);
  context.font = `700 ${side * 0.72}px system-ui, sans-serif`;
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = colour("on-mark");
  each((cell, r, c) => {
    if (isEnd(cell) || isUnknown(cell)) context.fillText(cell, (c + 0.5) * side, (r + 0.54) * side);
  });
  const frame = (r, c, name) => {
    const line = Math.min(MOST_FRAME * devicePixelRatio, Math.max(2, side * 0.2));
    context.lineWidth = line;
    context.strokeStyle = colour(name);
    context.strokeRect(c * side + line / 2, r * side + line / 2, side - line, side - line);
  };
  each((_, r, c) => faulty(r, c) && frame(r, c, "fault"));
  if (at) frame(...at, "focus");
}

/** Rectangles of a line from cell to cell; a cell with no neighbour on the path is a dot. */
function* path(cells, answer, side) {
  const marked = answer ?? cells;
  const on = (r, c) => {
    const cell = cells[r]?.[c];
    return isEnd(cell) || cell === PATH || (cell === FLOOR && marked[r]?.[c] === PATH);
  };
  const width = Math.max(2, Math.round(side * 0.34));
  const inset = (side - width) / 2;
  for (let r = 0; r < cells.length; r += 1) {
    for (let c = 0; c < cells[r].length; c += 1) {
      if (!on(r, c)) continue;
      yield [c * side + inset, r * side + inset, width, width];
      for (const [down, right] of [[1, 0], [0, 1]]) {
        if (!on(r + down, c + right)) continue;
        if (!answer && isEnd(cells[r][c]) && isEnd(cells[r + down][c + right])) continue;
        yield [c * side + inset, r * side + inset, width + right * side, width + down * side];
      }
    }
  }
}

function isEnd(cell) {
  return cell === START || cell === GOAL;
}

function isUnknown(cell) {
  return ![WALL, FLOOR, START, GOAL, PATH].includes(cell);
}
