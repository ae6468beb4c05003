// A Sudoku: its cells on the page, how they are filled, and how an answer is shown in them.

import { placesOf } from "./places.js";

const DIGITS = "123456789ABCDEFG";
const BLANK = ".";
const BOXES = { 4: [2, 2], 6: [2, 3], 9: [3, 3], 16: [4, 4] };

export const SIDES = Object.keys(BOXES).map(Number);

/** Puzzles with one solution each, the harder ones later. */
const EXAMPLES = {
  4: [".4..3......2.1..", ".3...12....1...."],
  6: ["5........56..14..3..2.4..2.1........", "1.2....4......45.63....2.6........1."],
  9: [
    "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79",
    "8..........36......7..9.2...5...7.......457.....1...3...1....68..85...1..9....4..",
    "1....7.9..3..2...8..96..5....53..9...1..8...26....4...3......1..4......7..7...3..",
  ],
  16: [
    ".A...62GEDC897..72893ACBGF.54E6D.GBC81.D9...A32...6D.7E43A.2.8CG.8F..2G7.....C..C1326.8E74" +
      ".B.F9.9..6.....CEG3D844B.G.93C.8.F5276...E7GF1..2.6..CF7A5.369DEG.81..G4C35.....6A79FEB621" +
      ".4A8.79.D5G3..4.GD7.A3.9...56.D..8.F.251...7.3.7.C.5..8..6D91C5.BE9..G7.2A48",
  ],
};

export class Sudoku {
  #board;
  #pad;
  #cells = [];
  #given = [];
  #answer = null;
  #drawn = [];
  #at = 0;

  /** `board` and `pad` are filled with cells and buttons; `changed` is called after each edit. */
  constructor(board, pad, changed) {
    this.#board = board;
    this.#pad = pad;
    this.changed = changed;
    board.setAttribute("role", "grid");
    board.setAttribute("aria-label", "Sudoku");
    board.addEventListener("keydown", (event) => this.#key(event));
    board.addEventListener("focusin", (event) => this.#enter(this.#cells.indexOf(event.target)));
    this.example(9);
  }

  get side() {
    return Math.sqrt(this.#given.length);
  }

  get size() {
    return `${this.side}x${this.side}`;
  }

  get text() {
    return this.#given.join("");
  }

  /** What the service takes. */
  get grid() {
    return this.text;
  }

  /** Take the puzzle of `text`; a message where it has no size that there is. */
  load(text) {
    const characters = [...text.replace(/[\s|+-]/g, "").toUpperCase()];
    const side = SIDES.find((one) => one * one === characters.length);
    if (!side) {
      const counts = SIDES.map((one) => one * one).join(", ");
      return `${characters.length} cells; a Sudoku has one of ${counts}.`;
    }
    const before = this.#given.length;
    this.#given = characters.map((one) => (one === "0" ? BLANK : one));
    if (before !== this.#given.length) this.#build(side);
    this.#edited();
    return "";
  }

  /** The next of the examples of `side`. */
  example(side) {
    const all = EXAMPLES[side];
    this.load(all[(all.indexOf(this.text) + 1) % all.length]);
  }

  clear() {
    this.load(BLANK.repeat(this.#given.length));
  }

  forget() {
    this.#answer = null;
    this.mark([]);
    this.#draw();
  }

  /** Show `rows` as decoded now; cells that are not as before flash. */
  show(rows) {
    const before = this.#answer;
    this.#answer = rows.flat().map((value) => (value ? DIGITS[value - 1] : ""));
    this.#draw();
    const changed = this.#cells.filter((_, index) =>
      this.#given[index] === BLANK && before?.[index] !== this.#answer[index]);
    for (const cell of changed) cell.classList.remove("changed");
    void this.#board.offsetWidth; // so that the animation of a cell begins anew
    for (const cell of changed) cell.classList.add("changed");
  }

  settle(rows) {
    this.show(rows);
  }

  /** Mark the cells that `problems` name. */
  mark(problems) {
    const faulty = new Set();
    for (const problem of problems) {
      for (const { row, column, box } of placesOf(problem)) {
        this.#cells.forEach((_, index) => {
          const [r, c] = [Math.floor(index / this.side), index % this.side];
          const here = (row === undefined || r === row - 1) && (column === undefined || c === column - 1)
            && (box === undefined || this.#box(r, c) === box);
          if (here) faulty.add(index);
        });
      }
    }
    this.#cells.forEach((cell, index) => {
      cell.classList.toggle("faulty", faulty.has(index));
      cell.toggleAttribute("aria-invalid", false);
      if (faulty.has(index)) cell.setAttribute("aria-invalid", "true");
    });
  }

  focus() {
    this.#cells[this.#at].focus();
  }

  #box(row, column) {
    const [height, width] = BOXES[this.side];
    return Math.floor(row / height) * (this.side / width) + Math.floor(column / width) + 1;
  }

  #build(side) {
    const [height, width] = BOXES[side];
    this.#at = 0;
    this.#drawn = [];
    this.#board.style.setProperty("--side", side);
    this.#cells = this.#given.map((_, index) => {
      const cell = document.createElement("div");
      const [row, column] = [Math.floor(index / side), index % side];
      cell.setAttribute("role", "gridcell");
      cell.tabIndex = index === 0 ? 0 : -1;
      cell.className = "cell";
      cell.classList.toggle("bottom", (row + 1) % height === 0 && row + 1 < side);
      cell.classList.toggle("right", (column + 1) % width === 0 && column + 1 < side);
      return cell;
    });
    const rows = Array.from({ length: side }, (_, row) => {
      const line = document.createElement("div");
      line.setAttribute("role", "row");
      line.append(...this.#cells.slice(row * side, (row + 1) * side));
      return line;
    });
    this.#board.replaceChildren(...rows);
    const keys = [...DIGITS.slice(0, side), BLANK].map((digit) => {
      const key = document.createElement("button");
      key.type = "button";
      key.textContent = digit === BLANK ? "⌫" : digit;
      if (digit === BLANK) key.setAttribute("aria-label", "Erase");
      key.addEventListener("click", () => this.#put(digit));
      return key;
    });
    this.#pad.style.setProperty("--keys", keys.length);
    this.#pad.style.setProperty("--half", Math.ceil(keys.length / 2));
    this.#pad.replaceChildren(...keys);
  }

  #draw() {
    this.#cells.forEach((cell, index) => {
      if (!this.#answer) cell.classList.remove("changed");
      const given = this.#given[index] !== BLANK;
      const value = given ? this.#given[index] : (this.#answer?.[index] ?? "");
      if (this.#drawn[index] === value + given) return;
      this.#drawn[index] = value + given;
      const [row, column] = [Math.floor(index / this.side) + 1, (index % this.side) + 1];
      const words = value ? `${value}, ${given ? "given" : "answer"}` : "blank";
      cell.textContent = value;
      cell.classList.toggle("given", given);
      cell.classList.toggle("answer", !given && Boolean(value));
      cell.setAttribute("aria-label", `Row ${row}, column ${column}: ${words}`);
    });
  }

  #edited() {
    this.forget();
    this.changed();
  }

  #put(digit) {
    this.#given[this.#at] = digit;
    this.#edited();
  }

  #enter(index) {
    if (index < 0) return;
    this.#cells[this.#at].tabIndex = -1;
    this.#cells[this.#at].classList.remove("current");
    this.#at = index;
    this.#cells[index].tabIndex = 0;
    this.#cells[index].classList.add("current");
  }

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const side = this.side;
    const [row, column] = [Math.floor(this.#at / side), this.#at % side];
    const moves = {
      ArrowUp: [row - 1, column], ArrowDown: [row + 1, column],
      ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1],
      Home: [row, 0], End: [row, side - 1],
    };
    const key = event.key.toUpperCase();
    if (event.key in moves) {
      const [r, c] = moves[event.key];
      this.#cells[((r + side) % side) * side + ((c + side) % side)].focus();
    } else if (event.key.length === 1 && DIGITS.slice(0, side).includes(key)) this.#put(key);
    else if (["Backspace", "Delete", "0", ".", " "].includes(event.key)) this.#put(BLANK);
    else return;
    event.preventDefault();
  }
}
