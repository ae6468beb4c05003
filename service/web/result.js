// What a solve came to, in words and numbers.

const REASONS = {
  converged: "The state came to rest.",
  verified: "An answer obeys the rules, so the search ended.",
  exhausted: "The budget is spent.",
  deadline: "Time ran out; this is the best answer so far.",
  cancelled: "It was cancelled; this is the best answer so far.",
  diverged: "The state grew beyond all bounds.",
};

export class Outcome {
  #status;
  #numbers;

  /** `status` is read out when it changes; `numbers` is a list of terms. */
  constructor(status, numbers) {
    this.#status = status;
    this.#numbers = numbers;
  }

  /** One line and nothing else. */
  say(words) {
    this.#status.replaceChildren(text("p", words, "quiet"));
    this.#numbers.replaceChildren();
  }

  show(answer) {
    this.#status.replaceChildren(
      text("h2", headline(answer)),
      badge(answer.verified, "verified", "not verified"),
      badge(answer.converged, "converged", "not converged"),
      text("p", REASONS[answer.finish_reason] ?? answer.finish_reason),
    );
    const { queue, solve, total } = answer.timing_ms;
    const { started, converged, lost } = answer.breadth;
    this.#numbers.replaceChildren(
      ...term("Iterations", answer.iterations),
      ...term("NFE", answer.nfe),
      ...term("Trajectories", `${started} started, ${converged} converged${lost ? `, ${lost} lost` : ""}`),
      ...term("Agreement", percent(answer.agreement)),
      ...term("Confidence", answer.confidence === null ? "not calibrated" : percent(answer.confidence)),
      ...term("Residual", answer.residual === null ? "not finite" : `${answer.residual.toPrecision(3)} (mean of the last 3)`),
      ...term("Time", `${milliseconds(total)} (${milliseconds(queue)} waiting, ${milliseconds(solve)} solving)`),
      ...term("Model", answer.model),
    );
  }

  /** A Problem: its title, and each fault or else its detail. */
  fail(problem) {
    const faults = problem.errors.map(({ place, message }) => (place ? `${place}: ${message}` : message));
    const list = document.createElement("ul");
    list.append(...(faults.length ? faults : [problem.message]).map((one) => text("li", one)));
    this.#status.replaceChildren(text("h2", problem.title, "bad"), list);
    if (problem.requestId) this.#status.append(text("p", `Request ${problem.requestId}`, "hint"));
    this.#numbers.replaceChildren();
  }
}

function headline({ verified, converged, finish_reason: reason }) {
  if (verified) return "Solved";
  if (converged) return "At rest, but against the rules";
  return reason === "deadline" ? "Not solved in time" : "Not solved";
}

function badge(holds, yes, no) {
  return text("span", holds ? `✓ ${yes}` : `✗ ${no}`, holds ? "badge yes" : "badge no");
}

function term(name, value) {
  return [text("dt", name), text("dd", value)];
}

function percent(share) {
  if (share > 0.9999 && share < 1) return "over 99.99 %";
  return `${Number((100 * share).toFixed(share > 0.99 ? 2 : 1))} %`;
}

function milliseconds(time) {
  if (time >= 10_000) return `${(time / 1000).toFixed(1)} s`;
  return `${time < 10 ? time.toFixed(1) : Math.round(time)} ms`;
}

function text(name, words, kind = "") {
  const one = document.createElement(name);
  one.textContent = words;
  if (kind) one.className = kind;
  return one;
}
