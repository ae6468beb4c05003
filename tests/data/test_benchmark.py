from __future__ import annotations

from pathlib import Path

import pytest

from eqr_core.data.benchmark import (
    BANDS,
    FILE,
    PUZZLES,
    band_rows,
    benchmark_rows,
    find_puzzles,
)
from eqr_core.data.check import check_file
from eqr_core.data.lanes import search
from eqr_core.data.puzzles import PuzzleRow, read_puzzles


@pytest.fixture(scope="module")
def rows() -> list[PuzzleRow]:
    return list(read_puzzles(FILE))


def test_the_shipped_file_is_sound_and_covers_the_ratings(rows: list[PuzzleRow]) -> None:
    report, packed = check_file(FILE)
    assert (report.rows, report.faults, report.equivalents) == (PUZZLES, 0, 0)
    assert packed is not None
    found = search((3, 3), packed.question - 1)
    assert found.rating.tolist() == [row.rating for row in rows]
    for i, row in enumerate(rows):
        low, high, _ = BANDS[i % len(BANDS)]
        assert low <= row.rating <= (high or 10_000)


@pytest.mark.parametrize("band", [0, 1, 2])
def test_the_generator_makes_the_shipped_rows(rows: list[PuzzleRow], band: int) -> None:
    assert list(band_rows(band, 15)) == rows[band : 15 * len(BANDS) : len(BANDS)]


def test_rows_of_all_bands_take_turns(rows: list[PuzzleRow]) -> None:
    made: list[None] = []
    assert list(benchmark_rows(3, report=lambda: made.append(None))) == rows[:3]
    assert len(made) == 3


def test_the_name_means_the_shipped_file_unless_there_is_one_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_puzzles(Path("benchmark")) == FILE
    assert find_puzzles(Path("other.csv")) == Path("other.csv")
    Path("benchmark").write_text("mine", encoding="utf-8")
    assert find_puzzles(Path("benchmark")) == Path("benchmark")
