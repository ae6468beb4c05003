// A maze: its cells on a canvas, how pointer and keys change them, and how an answer is shown.

import { FLOOR, GOAL, PATH, START, WALL, paint } from "./drawing.js";
import { placesOf } from "./places.js";

const NAMES = { [WALL]: "wall", [FLOOR]: "floor", [START]: "start", [GOAL]: "goal", [PATH]: "path" };
const MOST_SIDE = 256;

export class Maze {
  #canvas;
  #place;
  #cells = [];
  #answer = null;
  #changes = new Set();
  #faulty = new Set();
  #at = [0, 0];
  #stroke = null;
  #frame = null;

  /** `place` is told in words where the keys are; `changed` is called after each edit. */
  constructor(canvas, place, changed, rows) {
    this.#canvas = canvas;
    this.#place = place;
    this.changed = changed;
    canvas.addEventListener("pointerdown", (event) => this.#press(event));
    canvas.addEventListener("pointermove", (event) => this.#drag(event));
    for (const end of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(end, () => (this.#stroke = null));
    }
    canvas.addEventListener("keydown", (event) => this.#key(event));
    for (const turn of ["focus", "blur"]) canvas.addEventListener(turn, () => this.#draw());
    new ResizeObserver(() => this.#draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#draw());
    this.load(rows.join("\n"));
  }

  get size() {
    return `${this.#cells.length}x${this.#cells[0].length}`;
  }

  get text() {
    return this.grid.join("\n");
  }

  /** What the service takes. */
  get grid() {
    return this.#cells.map((row) => row.join(""));
  }

  /** Take the maze of `text`; a message where it is no rectangle. What its cells may be, the service knows. */
  load(text) {
    const rows = text.replace(/\r/g, "").replace(/^\n+|\n+$/g, "").split(/[\n/]/).map((row) => [...row]);
    const uneven = rows.findIndex((row) => row.length !== rows[0].length);
    if (uneven >= 0) {
      return `Row ${uneven + 1} has ${rows[uneven].length} cells, the first row ${rows[0].length}.`;
    }
    if (rows.length > MOST_SIDE || rows[0].length > MOST_SIDE || rows.length * rows[0].length < 2) {
      return `${rows.length} rows of ${rows[0].length} cells; a side has at most ${MOST_SIDE}, and two cells are needed.`;
    }
    this.#cells = rows;
    this.#at = this.#find(START) ?? [0, 0];
    this.#edited();
    return "";
  }

  forget() {
    this.#answer = null;
    this.#changes.clear();
    this.mark([]);
  }

  /** Show `rows` as decoded now; cells that are not as before are outlined. */
  show(rows) {
    const before = this.#answer;
    this.#answer = rows;
    this.#changes = new Set();
    this.#each((cell, r, c) => {
      const path = this.#isPath(rows, r, c);
      if (cell === FLOOR && path !== this.#isPath(before, r, c)) this.#changes.add(this.#index(r, c));
    });
    this.#draw();
  }

  settle(rows) {
    this.#answer = rows;
    this.#changes.clear();
    this.#draw();
  }

  /** Mark the cells that `problems` name. */
  mark(problems) {
    this.#faulty.clear();
    for (const problem of problems) {
      for (const { row, column } of placesOf(problem)) {
        this.#each((_, r, c) => {
          const here = (row === undefined || r === row - 1) && (column === undefined || c === column - 1);
          if (here) this.#faulty.add(this.#index(r, c));
        });
      }
    }
    this.#canvas.toggleAttribute("data-faulty", this.#faulty.size > 0);
    this.#draw();
  }

  focus() {
    this.#canvas.focus();
  }

  #each(visit) {
    this.#cells.forEach((row, r) => row.forEach((cell, c) => visit(cell, r, c)));
  }

  #index(row, column) {
    return row * this.#cells[0].length + column;
  }

  #find(character) {
    const row = this.#cells.findIndex((one) => one.includes(character));
    return row < 0 ? null : [row, this.#cells[row].indexOf(character)];
  }

  #isPath(rows, r, c) {
    return rows?.[r]?.[c] === PATH;
  }

  #edited() {
    this.forget();
    this.changed();
  }

  #set([row, column], character) {
    if (this.#cells[row][column] === character) return;
    if (character === START || character === GOAL) {
      const old = this.#find(character);
      if (old) this.#cells[old[0]][old[1]] = FLOOR;
    } else if ([START, GOAL].includes(this.#cells[row][column])) return;
    this.#cells[row][column] = character;
    this.#edited();
  }

  #hit(event) {
    const box = this.#canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.#cells.length);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.#cells[0].length);
    return this.#cells[row]?.[column] === undefined ? null : [row, column];
  }

  #press(event) {
    const place = this.#hit(event);
    const scrolls = event.pointerType === "touch" && !this.#canvas.classList.contains("drawing");
    if (!place || event.button !== 0 || scrolls) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#at = place;
    const cell = this.#cells[place[0]][place[1]];
    const held = cell === START || cell === GOAL;
    this.#stroke = { last: place, character: held ? cell : cell === WALL ? FLOOR : WALL };
    if (!held) this.#set(place, this.#stroke.character);
  }

  #drag(event) {
    if (!this.#stroke) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const one of all.length ? all : [event]) {
      const place = this.#hit(one);
      if (!place) continue;
      const { last, character } = this.#stroke;
      const moved = [place[0] - last[0], place[1] - last[1]];
      const steps = Math.max(...moved.map(Math.abs));
      for (let step = 1; step <= steps; step += 1) {
        this.#set(last.map((from, axis) => Math.round(from + (moved[axis] * step) / steps)), character);
      }
      this.#stroke.last = this.#at = place;
    }
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const [row, column] = this.#at;
    const moves = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
    };
    const key = event.key.toUpperCase();
    if (event.key in moves) {
      const [r, c] = moves[event.key];
      if (this.#cells[r]?.[c] !== undefined) this.#at = [r, c];
    } else if (event.key === " ") this.#set(this.#at, this.#cells[row][column] === WALL ? FLOOR : WALL);
    else if (key === START || key === GOAL) this.#set(this.#at, key);
    else return;
    event.preventDefault();
    this.#tell();
    this.#draw();
  }

  #tell() {
    const [row, column] = this.#at;
    const cell = this.#cells[row][column];
    const path = cell === FLOOR && this.#isPath(this.#answer, row, column);
    this.#place.textContent =
      `Row ${row + 1}, column ${column + 1}: ${path ? "path" : (NAMES[cell] ?? cell)}`;
  }

  /** Drawn once a frame, however often it is asked for. */
  #draw() {
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = null;
      paint(this.#canvas, {
        cells: this.#cells,
        answer: this.#answer,
        changed: (r, c) => this.#changes.has(this.#index(r, c)),
        faulty: (r, c) => this.#faulty.has(this.#index(r, c)),
        at: this.#canvas.matches(":focus-visible") ? this.#at : null,
      });
    });
  }
}
