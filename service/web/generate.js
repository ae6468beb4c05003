// Random perfect mazes: rooms on every other row and column, joined into a tree of corridors.

const NEWEST = 0.75; // how often it grows from its newest room: the less, the more dead ends

/** Rows of a maze; where a side is even, its last row or column is one more wall. */
export function randomMaze(rows, columns) {
  const cells = Array.from({ length: rows }, () => Array(columns).fill("#"));
  const [lastRow, lastColumn] = [oddBelow(rows), oddBelow(columns)];
  const first = [1 + 2 * below((lastRow + 1) / 2), 1 + 2 * below((lastColumn + 1) / 2)];
  const rooms = [first];
  cells[first[0]][first[1]] = " ";
  while (rooms.length) {
    const index = Math.random() < NEWEST ? rooms.length - 1 : below(rooms.length);
    const [row, column] = rooms[index];
    const free = [[-2, 0], [2, 0], [0, -2], [0, 2]].filter(([down, right]) => {
      const [r, c] = [row + down, column + right];
      return r >= 1 && r <= lastRow && c >= 1 && c <= lastColumn && cells[r][c] === "#";
    });
    if (!free.length) {
      rooms.splice(index, 1);
      continue;
    }
    const [down, right] = free[below(free.length)];
    cells[row + down / 2][column + right / 2] = " ";
    cells[row + down][column + right] = " ";
    rooms.push([row + down, column + right]);
  }
  placeEnds(cells, first);
  return cells.map((row) => row.join(""));
}

/** S in one room and G in another that is some way off, though rarely the farthest. */
function placeEnds(cells, start) {
  const steps = distances(cells, start);
  const far = [...steps].filter(([, one]) => one >= Math.min(cells.length, cells[0].length) / 2);
  const [key] = far[below(far.length)];
  const [row, column] = key.split(",").map(Number);
  cells[start[0]][start[1]] = "S";
  cells[row][column] = "G";
}

function distances(cells, start) {
  const steps = new Map([[start.join(","), 0]]);
  const line = [start];
  for (const [row, column] of line) {
    const here = steps.get(`${row},${column}`);
    for (const [r, c] of [[row - 1, column], [row + 1, column], [row, column - 1], [row, column + 1]]) {
      if (cells[r][c] === "#" || steps.has(`${r},${c}`)) continue;
      steps.set(`${r},${c}`, here + 1);
      line.push([r, c]);
    }
  }
  return steps;
}

function oddBelow(side) {
  return side % 2 ? side - 2 : side - 3;
}

function below(limit) {
  return Math.floor(Math.random() * limit);
}
