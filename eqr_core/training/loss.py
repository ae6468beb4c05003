"""The loss of one outer step: stablemax cross-entropy and the halting loss (paper, training)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORE = -100
"""Label of a cell that takes no part in the loss."""


def log_stablemax(logits: Tensor) -> Tensor:
    """log(s_i / Σ_j s_j) over the last axis, in the dtype of `logits`.

    s(x) = x + 1 for x ≥ 0 and 1 / (1 − x) below, so log s is ±log1p|x| and the rest is a
    softmax of it. The clamps keep the gradient of the branch not taken finite.
    """
    log_s = torch.where(
        logits >= 0, torch.log1p(logits.clamp(min=0)), -torch.log1p(-logits.clamp(max=0))
    )
    return F.log_softmax(log_s, dim=-1)


def stablemax_cross_entropy(logits: Tensor, labels: Tensor, ignore: int = IGNORE) -> Tensor:
    """Cross-entropy of each token, in the dtype of `logits`; 0 where the label is `ignore`.

    `logits` [..., values], `labels` [...] any integer dtype. The paper computes it in float64.
    """
    kept = labels != ignore
    target = torch.where(kept, labels, 0).long()
    chosen = log_stablemax(logits).gather(-1, target[..., None])[..., 0]
    return torch.where(kept, -chosen, torch.zeros((), dtype=logits.dtype, device=logits.device))


def act_loss(
    logits: Tensor, q_halt: Tensor, labels: Tensor, ignore: int = IGNORE
) -> tuple[Tensor, Tensor]:
    """Answer loss and halting loss of each sample, [batch] both; the paper adds 1 : 0.5.

    The first is the mean stablemax cross-entropy over the cells that count, the second the
    binary cross-entropy of the halting logit against "every cell that counts is right now".
    `logits` [batch, tokens, values], `q_halt` [batch], `labels` [batch, tokens].
    """
    kept = labels != ignore
    answer = stablemax_cross_entropy(logits, labels, ignore).sum(-1) / kept.sum(-1).clamp(min=1)
    right = ((logits.argmax(-1) == labels) | ~kept).all(-1)
    halting = F.binary_cross_entropy_with_logits(q_halt, right.to(q_halt.dtype), reduction="none")
    return answer, halting
