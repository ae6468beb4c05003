from __future__ import annotations

import math

import pytest
import torch

from eqr_core.training.loss import act_loss, log_stablemax, stablemax_cross_entropy


def expected(row: list[float], label: int) -> float:
    s = [v + 1 if v >= 0 else 1 / (1 - v) for v in row]
    return -math.log(s[label] / sum(s))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_cross_entropy_by_hand_in_the_dtype_of_the_logits(
    dtype: torch.dtype, tolerance: float
) -> None:
    rows = [[0.0, 0.0, 0.0], [80.0, -30.0, 1.0], [-0.5, 0.5, -1e6], [1.0, 1.0, 1e6]]
    labels = [2, 1, 2, 0]
    loss = stablemax_cross_entropy(torch.tensor(rows, dtype=dtype), torch.tensor(labels))
    assert loss.dtype == dtype
    wanted = [expected(row, label) for row, label in zip(rows, labels, strict=True)]
    assert loss.tolist() == pytest.approx(wanted, rel=tolerance)


def test_probabilities_sum_to_one() -> None:
    logits = torch.randn(4, 5, 7, dtype=torch.float64) * 30
    total = log_stablemax(logits).exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_gradient_is_right_and_finite_everywhere() -> None:
    logits = torch.tensor([[1.0, -1.0, 0.3], [2.5, -80.0, -0.2]], dtype=torch.float64)
    logits.requires_grad_()
    labels = torch.tensor([1, 0])
    assert torch.autograd.gradcheck(lambda x: stablemax_cross_entropy(x, labels), (logits,))
    zero = torch.zeros(1, 4, dtype=torch.float64, requires_grad=True)
    stablemax_cross_entropy(zero, torch.tensor([3])).sum().backward()
    assert zero.grad is not None
    assert zero.grad.tolist() == [pytest.approx([0.25, 0.25, 0.25, -0.75])]


def test_ignored_cells_count_for_nothing() -> None:
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    labels = torch.tensor([[1, -100, 2], [-100, -100, -100]])
    answer, halting = act_loss(logits, torch.tensor([0.5, -0.5], dtype=torch.float64), labels)
    cells = stablemax_cross_entropy(logits, labels)
    assert cells[0, 1].item() == 0
    assert answer[0].item() == pytest.approx((cells[0, 0] + cells[0, 2]).item() / 2)
    assert answer[1].item() == 0
    answer.sum().backward()
    assert logits.grad is not None
    assert not logits.grad[1].any()
    assert not logits.grad[0, 1].any()
    assert halting.shape == (2,)


def test_halting_is_asked_whether_every_cell_is_right() -> None:
    labels = torch.tensor([[0, 1], [0, 1], [0, -100]])
    logits = torch.tensor([[[2.0, 1], [1, 2]], [[2, 1], [2, 1]], [[2, 1], [2, 1]]])
    q = torch.tensor([3.0, 3.0, 3.0])
    _, halting = act_loss(logits, q, labels)
    right, wrong = math.log(1 + math.exp(-3)), math.log(1 + math.exp(3))
    assert halting.tolist() == pytest.approx([right, wrong, right], rel=1e-5)
