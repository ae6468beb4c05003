"""Parity of the choice between trajectories: the reference's score and aggregate metrics."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import torch
from torch import Tensor

from eqr_core.evaluation.parity.comparison import (
    EXACT,
    SCORE_TOLERANCE,
    Comparison,
    Fixture,
    failed,
)
from eqr_core.evaluation.parity.model import (
    RESIDUAL_TOLERANCE,
    STATE_TOLERANCE,
    outer_steps,
    read_operator,
)
from eqr_core.training.loss import IGNORE

METRICS = "aggregate_metrics_on_agg_preds"


def logit_change_score(logits: Tensor, window: int = 0) -> Tensor:
    """The reference's convergence score of each trajectory; lower is better.

    Mean over the last `window` steps (all where it is 0 or too large) and all positions of the
    L2 norm over the vocabulary of y_t − y_{t−1}. `logits` [steps, ..., positions, vocabulary].
    """
    change = (logits[1:] - logits[:-1]).norm(dim=-1)
    score: Tensor = change[-min(window, len(change)) :].mean(dim=(0, -1))
    return score


def vote(predictions: Tensor) -> Tensor:
    """The most frequent whole grid of [trajectories, positions]; the earliest on a tie."""
    rows = Counter(tuple(row) for row in predictions.tolist())
    return torch.tensor(rows.most_common(1)[0][0])


def pass_at(k: int, right: Tensor) -> float:
    """Chance that k of the trajectories, drawn without return, hold a right one; mean of inputs.

    `right` is bool [inputs, trajectories] (Chen et al. 2021, the unbiased estimator).
    """
    n = right.shape[1]
    missed = [math.comb(n - int(count), k) / math.comb(n, k) for count in right.sum(1)]
    return 1 - sum(missed) / len(missed)


def breadth_metrics(predictions: Tensor, labels: Tensor) -> dict[str, float]:
    """The reference's metrics over all trajectories [inputs, trajectories, positions]."""
    kept = labels != IGNORE
    right = _right(predictions, labels)
    winners = torch.stack([vote(rows) for rows in predictions])
    hits = (winners == labels) & kept
    majority = (hits | ~kept).all(-1).double().mean().item()
    inputs, n = right.shape
    return {
        "different_init/avg_pass_rate": right.double().mean().item(),
        "different_init/any_correct": right.any(1).double().mean().item(),
        "different_init/majority_vote_acc": majority,
        "different_init/total_samples": inputs,
        "different_init/n": n,
        "majority_vote/exact_accuracy": majority,
        "majority_vote/accuracy": (hits.sum() / kept.sum()).item(),
        "majority_vote/num_samples": inputs,
        **{f"different_init/pass@{k}": pass_at(k, right) for k in range(1, n + 1)},
    }


def top_metrics(predictions: Tensor, labels: Tensor, scores: Tensor, k: int) -> dict[str, float]:
    """The reference's metrics over the k trajectories of the lowest score."""
    best = scores.argsort(dim=1)[:, :k]
    right = _right(predictions, labels).gather(1, best)
    share = right.double()
    top = "convergence_top_k/"
    return {
        f"{top}exact_accuracy": share.mean().item(),
        f"{top}any_correct": right.any(1).double().mean().item(),
        f"{top}avg_convergence_score": scores.gather(1, best).double().mean().item(),
        f"{top}total_samples": len(right),
        f"{top}k": k,
        **{f"{top}pass@{j}": pass_at(j, right) for j in range(1, k + 1)},
        **{
            f"{top}cumulative_exact_acc_top{j}": share[:, :j].mean().item() for j in range(1, k + 1)
        },
    }


@torch.no_grad()
def compare_selection(folder: Path) -> list[Comparison]:
    """Scores, order and metrics of the stored logits; logits of the stored initial states."""
    fixture = Fixture(folder)
    logits, window = fixture.take("logits"), int(fixture.value("window"))
    windows = {"scores": window, "scores_all": 0} | {
        name: int(name.removeprefix("scores_window_"))
        for name in sorted(fixture.vectors)
        if name.startswith("scores_window_")
    }
    for name, size in windows.items():
        fixture.compare(name, logit_change_score(logits, size), SCORE_TOLERANCE)
    scores = logit_change_score(logits, window)
    fixture.compare("top1", scores.argmin(1), EXACT)
    fixture.compare("order", scores.argsort(dim=1), EXACT)
    for name, expected in fixture.config.get("top1_by_window", {}).items():
        best = logit_change_score(logits, 0 if name == "all" else int(name)).argmin(1)
        fixture.compare_value(f"top1, window {name}", best.tolist(), expected)
    fixture.compare("preds", logits[-1].argmax(-1), EXACT)
    _compare_own(fixture, window)
    _compare_metrics(fixture)
    return fixture.finish()


def _compare_own(fixture: Fixture, window: int) -> None:
    """Run the trajectories whose initial states are stored, and choose between them."""
    inputs, z_H, z_L = (fixture.take(name) for name in ("inputs", "z_H_0", "z_L_0"))
    known, trajectories, tokens, _ = z_H.shape
    source = Fixture(fixture.folder.parent / str(fixture.value("model_fixture")))
    operator, _ = read_operator(source, tokens)
    rows = inputs[:known].long().repeat_interleave(trajectories, dim=0)
    state = (z_H.flatten(0, 1), z_L.flatten(0, 1))
    steps = list(outer_steps(operator, state, operator.embed(rows), len(fixture.take("logits"))))
    shape = (len(steps), known, trajectories, -1)
    logits = torch.stack([step[1] for step in steps]).view(*shape[:3], tokens, -1)
    q = torch.stack([step[2] for step in steps]).view(shape)
    residual = torch.stack([step[3] for step in steps]).view(shape[:3])
    fixture.compare("logits", logits, STATE_TOLERANCE, first=known)
    fixture.compare("q_halt", q[..., 0], STATE_TOLERANCE, first=known)
    fixture.compare("residual", residual, RESIDUAL_TOLERANCE, first=known)
    best = logit_change_score(logits, window).argmin(1)
    theirs = fixture.take("top1")[:known]
    fixture.compare_value("top1 of our own logits", best.tolist(), theirs.tolist())


def _compare_metrics(fixture: Fixture) -> None:
    predictions, labels = fixture.take("agg_preds").long(), fixture.take("agg_labels").long()
    scores = fixture.take("scores")
    for block, expected in fixture.value(METRICS).items():
        if block.startswith("top_k="):
            k = int(block.removeprefix("top_k="))
            ours = top_metrics(predictions, labels, scores, k)
        else:
            ours = breadth_metrics(predictions, labels)
        for name, value in expected.items():
            shown = f"{block}: {name.rsplit('/', 1)[-1]}" if "top_k" in block else name
            if name in ours:
                fixture.compare_value(shown, ours[name], value, SCORE_TOLERANCE)
            else:
                row = failed(fixture.folder.name, shown, "not a known metric")
                fixture.comparisons.append(row)


def _right(predictions: Tensor, labels: Tensor) -> Tensor:
    wanted = labels[:, None]
    return ((predictions == wanted) | (wanted == IGNORE)).all(-1)
