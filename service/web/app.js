// The page: what is chosen, one solve at a time, and who is told of it.

import { Problem, models, solve } from "./api.js";
import { Catalogue } from "./catalogue.js";
import { randomMaze } from "./generate.js";
import { Maze } from "./maze.js";
import { Plot } from "./plot.js";
import { Outcome } from "./result.js";
import { SIDES, Sudoku } from "./sudoku.js";

const KEY = "eqr-api-key";
const MOST_HISTORY = 100_000; // residuals that one answer may list
const DEPTH = { sudoku: 64, maze: 128 };
const TEXT = {
  sudoku: "One character a cell: digits, A to G for 10 to 16, a dot for a blank.",
  maze: "One line a row: # wall, space floor, S start, G goal.",
};

let catalogue = new Catalogue([]);
let key = sessionStorage.getItem(KEY) ?? "";
let running = null;

const at = (id) => document.getElementById(id);
const form = at("solve-form");
const outcome = new Outcome(at("status"), at("numbers"));
const plot = new Plot(at("plot"));
const boards = {
  sudoku: new Sudoku(at("sudoku-board"), at("pad"), edited),
  maze: new Maze(at("maze-board"), at("maze-place"), edited, randomMaze(21, 21)),
};

function task() {
  return document.querySelector("input[name=task]:checked").value;
}

function board() {
  return boards[task()];
}

function drop() {
  running?.abort();
  running = null;
  busy(false);
}

function edited() {
  if (!catalogue.models.length) return; // the page is not there yet
  drop();
  at("text").value = board().text;
  at("text-note").textContent = TEXT[task()];
  offerModels();
  plot.clear(expectedTolerance());
  outcome.say("Press Solve.");
}

function offerModels() {
  const select = at("model");
  const before = select.value;
  const names = catalogue.fitting(task(), board().size).map((model) => model.name);
  const options = names.map((name) => new Option(name, name));
  select.replaceChildren(new Option(names.length ? "automatic" : "none fits this size", ""), ...options);
  if (names.includes(before)) select.value = before;
}

function expectedTolerance() {
  const name = at("model").value || catalogue.fitting(task(), board().size)[0]?.name;
  return catalogue.tolerance(name);
}

function showTask() {
  const [now, served] = [task(), catalogue.has(task())];
  for (const name of Object.keys(boards)) at(name).hidden = name !== now || !served;
  at("actions").hidden = at("as-text").hidden = form.hidden = at("outcome").hidden = !served;
  at("unserved").hidden = served;
  const title = now === "maze" ? "maze" : "Sudoku";
  at("unserved").textContent = `No ${title} model is served here. Start the service with one: eqr serve --models …`;
  if (!served) return;
  at("depth").value = DEPTH[now];
  edited();
}

async function begin() {
  try {
    catalogue = new Catalogue(await models(key));
  } catch (problem) {
    fail(problem);
    return;
  }
  at("key-form").hidden = true;
  const sides = SIDES.filter((side) => catalogue.fitting("sudoku", `${side}x${side}`).length);
  at("size").replaceChildren(...sides.map((side) => new Option(`${side} × ${side}`, side)));
  at("size").value = sides.includes(9) ? 9 : (sides[0] ?? "");
  if (sides.length && !sides.includes(boards.sudoku.side)) boards.sudoku.example(sides[0]);
  showTask();
}

function body() {
  const number = (id) => Number(at(id).value);
  const [depth, breadth] = [number("depth"), number("breadth")];
  return {
    grid: board().grid,
    task: task(),
    ...(at("model").value && { model: at("model").value }),
    budget: { depth, breadth, stop: at("stop").value },
    seed: number("seed"),
    include: depth * breadth <= MOST_HISTORY ? ["history"] : [],
    cache: false, // whoever presses Solve wants to see it being solved
  };
}

async function run() {
  running?.abort();
  const controller = (running = new AbortController());
  const shown = board();
  const current = () => running === controller;
  busy(true);
  shown.forget();
  markFields([]);
  plot.clear(expectedTolerance());
  outcome.say("Solving …");
  try {
    for await (const [name, data] of solve(body(), key, controller.signal)) {
      if (!current()) return;
      if (name === "progress") {
        shown.show(data.grid);
        plot.add(data.iteration, data.residual);
      } else finish(shown, data);
    }
  } catch (error) {
    if (!current()) return;
    if (error.name === "AbortError") outcome.say("Cancelled.");
    else fail(error);
  } finally {
    if (current()) {
      running = null;
      busy(false);
    }
  }
}

function finish(shown, answer) {
  shown.settle(answer.grid);
  outcome.show(answer);
  const all = answer.trajectories ?? [];
  const chosen = all.find((one) =>
    one.text === answer.text && one.residual === answer.residual && one.iterations === answer.iterations);
  if (all.length) plot.finish(all, chosen, catalogue.tolerance(answer.model));
}

function fail(error) {
  at("outcome").hidden = false;
  if (!(error instanceof Problem)) {
    outcome.say("The page failed; its console says how.");
    throw error;
  }
  outcome.fail(error);
  board().mark(error.errors);
  markFields(error.errors);
  if (error.status === 401) {
    at("key-form").hidden = false;
    at("key").focus();
  }
}

function markFields(errors) {
  for (const id of ["depth", "breadth", "seed", "model"]) {
    at(id).setAttribute("aria-invalid", errors.some(({ pointer }) => pointer.endsWith(`/${id}`)));
  }
}

function busy(now) {
  at("cancel").disabled = !now;
  at("running").classList.toggle("on", now);
  form.setAttribute("aria-busy", now);
}

function loadText(text) {
  const fault = board().load(text);
  at("text-note").textContent = fault || TEXT[task()];
  at("text").setAttribute("aria-invalid", Boolean(fault));
  if (fault) at("as-text").open = true;
  else if (task() === "sudoku") at("size").value = boards.sudoku.side;
}

for (const radio of document.querySelectorAll("input[name=task]")) {
  radio.addEventListener("change", () => {
    drop();
    showTask();
  });
}
at("size").addEventListener("change", () => boards.sudoku.example(Number(at("size").value)));
at("example").addEventListener("click", () => boards.sudoku.example(boards.sudoku.side));
at("clear").addEventListener("click", () => boards.sudoku.clear());
at("new-maze").addEventListener("click", () => {
  if (!at("rows").reportValidity() || !at("columns").reportValidity()) return;
  boards.maze.load(randomMaze(Number(at("rows").value), Number(at("columns").value)).join("\n"));
});
at("draw").addEventListener("click", () => {
  const drawing = at("maze-board").classList.toggle("drawing");
  at("draw").setAttribute("aria-pressed", drawing);
});
at("model").addEventListener("change", () => plot.clear(expectedTolerance()));
at("text").addEventListener("change", () => loadText(at("text").value));
for (const id of ["sudoku-board", "maze-board"]) {
  at(id).addEventListener("paste", (event) => {
    event.preventDefault();
    loadText(event.clipboardData.getData("text"));
    board().focus();
  });
  at(id).addEventListener("keydown", (event) => {
    if (event.key === "Enter") form.requestSubmit();
  });
}
form.addEventListener("submit", (event) => {
  event.preventDefault();
  run();
});
at("cancel").addEventListener("click", () => {
  running?.abort();
  at("solve").focus();
});
at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  key = at("key").value.trim();
  sessionStorage.setItem(KEY, key);
  begin();
});

begin();
