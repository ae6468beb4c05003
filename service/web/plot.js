// The residual of every iteration, on a logarithmic axis, as SVG.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 360, HEIGHT = 170;
const BOX = { left: 44, right: 350, top: 10, bottom: 142 };
const MOST_LINES = 64, MOST_POINTS = 400;

export class Plot {
  #svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img" });
  #lines = [];
  #tolerance = null;

  constructor(figure) {
    figure.append(this.#svg);
    this.clear(null);
  }

  /** Empty axes, and the residual at which a trajectory is at rest where it is known. */
  clear(tolerance) {
    this.#tolerance = tolerance;
    this.#lines = [];
    this.#draw();
  }

  /** One more residual of the leading trajectory; it begins anew when another one leads. */
  add(iteration, residual) {
    if (residual === null) return;
    const line = this.#lines.at(-1);
    if (line && iteration > line.points.at(-1)[0]) line.points.push([iteration, residual]);
    else {
      if (line) line.chosen = false;
      this.#lines = this.#lines.slice(-MOST_LINES + 1);
      this.#lines.push({ chosen: true, points: [[iteration, residual]] });
    }
    this.#draw();
  }

  /** The histories of all trajectories, in which the chosen one stands out. */
  finish(trajectories, chosen, tolerance) {
    this.#tolerance = tolerance;
    const lines = trajectories.map((one) => ({ chosen: one === chosen, points: pointsOf(one.history) }));
    lines.sort((a, b) => b.chosen - a.chosen);
    this.#lines = lines.slice(0, MOST_LINES).reverse();
    this.#draw();
  }

  #draw() {
    const points = this.#lines.flatMap((line) => line.points).filter(([, residual]) => residual > 0);
    const residuals = points.map(([, residual]) => residual);
    if (this.#tolerance) residuals.push(this.#tolerance);
    const low = Math.floor(Math.log10(residuals.reduce((a, b) => Math.min(a, b), 1e-2)));
    const high = Math.ceil(Math.log10(residuals.reduce((a, b) => Math.max(a, b), 1)));
    const last = points.reduce((most, [iteration]) => Math.max(most, iteration), 8);
    const x = (iteration) => BOX.left + ((iteration - 1) / (last - 1)) * (BOX.right - BOX.left);
    const y = (residual) => {
      const share = (Math.log10(residual) - low) / (high - low);
      return BOX.bottom - Math.max(0, share) * (BOX.bottom - BOX.top);
    };
    this.#svg.replaceChildren(...axes(low, high, last, x, y), ...this.#limit(y));
    for (const line of this.#lines) this.#svg.append(...drawn(line, x, y));
    this.#svg.setAttribute("aria-label", this.#words(points));
  }

  #limit(y) {
    if (!this.#tolerance) return [];
    const at = y(this.#tolerance);
    return [
      element("line", { class: "limit", x1: BOX.left, x2: BOX.right, y1: at, y2: at }),
      label("at rest below", { x: BOX.left + 4, y: at - 4 }),
    ];
  }

  #words(points) {
    if (!points.length) return "Residual by iteration: nothing yet";
    const line = this.#lines.find((one) => one.chosen) ?? this.#lines.at(-1);
    const [iteration, residual] = line.points.at(-1) ?? points.at(-1);
    return `Residual by iteration: ${residual.toPrecision(2)} at iteration ${iteration}`;
  }
}

function pointsOf(history) {
  const step = Math.ceil(history.length / MOST_POINTS);
  return history
    .map((residual, index) => [index + 1, residual])
    .filter(([iteration, residual]) =>
      residual !== null && (iteration % step === 0 || iteration === 1 || iteration === history.length));
}

function axes(low, high, last, x, y) {
  const shapes = [];
  const every = Math.ceil((high - low) / 5);
  for (let power = low; power <= high; power += every) {
    const at = y(10 ** power);
    shapes.push(element("line", { class: "axis", x1: BOX.left, x2: BOX.right, y1: at, y2: at }));
    shapes.push(label(powerOfTen(power), { x: BOX.left - 7, y: at + 4, "text-anchor": "end" }));
  }
  for (const iteration of [1, Math.round((1 + last) / 2), last]) {
    const anchor = iteration === last ? "end" : "middle";
    shapes.push(label(iteration, { x: x(iteration), y: HEIGHT - 10, "text-anchor": anchor }));
  }
  return shapes;
}

function drawn({ chosen, points }, x, y) {
  const shown = points.filter(([, residual]) => residual > 0);
  if (!shown.length) return [];
  const kind = chosen ? "chosen" : "other";
  const places = shown.map(([iteration, residual]) => `${x(iteration).toFixed(1)},${y(residual).toFixed(1)}`);
  const [endX, endY] = places.at(-1).split(",");
  const line = element("polyline", { class: kind, points: places.join(" ") });
  return chosen ? [line, element("circle", { class: kind, cx: endX, cy: endY, r: 3 })] : [line];
}

function powerOfTen(power) {
  if (Math.abs(power) < 3) return Number((10 ** power).toFixed(2));
  return `10${[...String(power)].map((one) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[one] ?? "⁻").join("")}`;
}

function label(text, attributes) {
  const one = element("text", attributes);
  one.textContent = text;
  return one;
}

function element(name, attributes) {
  const one = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  return one;
}
