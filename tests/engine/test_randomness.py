from __future__ import annotations

import itertools

import torch

from eqr_core.engine.randomness import initial_state, path_noise

SHAPE = (16, 24)


def test_the_same_draw_again_and_another_everywhere_else() -> None:
    places = [
        (0, 0, 1, 0),
        (1, 0, 1, 0),
        (0, 1, 1, 0),
        (0, 0, 2, 0),
        (0, 0, 1, 1),
        (2**64 - 1, 0, 1, 0),
    ]
    draws = [path_noise(*place, SHAPE, 1.0) for place in places]
    for place, draw in zip(places, draws, strict=True):
        assert torch.equal(draw, path_noise(*place, SHAPE, 1.0))
    for a, b in itertools.combinations(draws, 2):
        # Equal anywhere: a shifted stream would be found too. A few float32 meet by chance.
        assert torch.isin(a, b).float().mean() < 0.01


def test_neither_draw_depends_on_the_global_generator() -> None:
    torch.manual_seed(1)
    first = initial_state(5, 2, SHAPE, 2)
    torch.manual_seed(2)
    second = initial_state(5, 2, SHAPE, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_initial_states_are_truncated_normal_of_std_one() -> None:
    (state,) = initial_state(0, 0, (400, 400), 1)
    assert state.dtype == torch.float32
    assert abs(state.mean().item()) < 0.01
    assert abs(state.std().item() - 1) < 0.01
    assert state.abs().max().item() < 2.3


def test_noise_has_the_scale_asked_for() -> None:
    noise = path_noise(0, 0, 1, 0, (400, 400), 0.25)
    assert noise.dtype == torch.float32
    assert abs(noise.mean().item()) < 0.005
    assert abs(noise.std().item() - 0.25) < 0.005
