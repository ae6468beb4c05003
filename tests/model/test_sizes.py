from __future__ import annotations

import pytest

from eqr_core.model.sizes import count, fits, is_size, named


@pytest.mark.parametrize("text", ["9x9", "4x16", "5x5-60x60", "3x9-3x20"])
def test_sizes_and_ranges(text: str) -> None:
    assert is_size(text)


@pytest.mark.parametrize(
    "text", ["", "9", "9x", "0x9", "9x9-", "9x9-8x12", "9x9-12x8", "3x3-4x4-5x5", "09x9", "9x9 "]
)
def test_what_is_no_size(text: str) -> None:
    assert not is_size(text)


def test_a_range_holds_every_rectangle_between_its_ends() -> None:
    sizes = ("4x4", "5x7-9x20")
    for size in ("4x4", "5x7", "9x20", "5x20", "7x8"):
        assert fits(sizes, size), size
    for size in ("4x7", "5x6", "10x7", "9x21", "20x9"):
        assert not fits(sizes, size), size
    assert named(sizes) == ["4x4", "5x7", "9x20"]
    assert count(sizes) == 1 + 5 * 14
