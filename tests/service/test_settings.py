from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest

from service.cli import serve
from service.settings import Settings, SettingsError, read_settings, usable_cpus


def test_flags_win_over_variables_over_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings().port == 8000
    monkeypatch.setenv("EQR_PORT", "9001")
    monkeypatch.setenv("EQR_MODELS", "sudoku, runs/mine")
    assert read_settings(port=None).port == 9001
    assert read_settings(port=9002).port == 9002
    assert read_settings().models == ("sudoku", "runs/mine")


def test_every_field_is_a_flag() -> None:
    assert set(inspect.signature(serve).parameters) == set(Settings.model_fields)


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"port": 0}, "port"),
        ({"port": 70000}, "port"),
        ({"slots": 0}, "slots"),
        ({"queue": -1}, "queue"),
        ({"deadline_ms": float("nan")}, "deadline_ms"),
        ({"drain_seconds": -1.0}, "drain_seconds"),
        ({"max_body_bytes": 1}, "max_body_bytes"),
        ({"log_level": "loud"}, "log_level"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(given: dict[str, object], word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(**given)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_misspelt_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQR_SLOT", "5")
    with pytest.raises(SettingsError, match="EQR_SLOT"):
        read_settings()


@pytest.mark.parametrize(
    ("quota", "cpus"),
    [("100000 100000\n", 1), ("50000 100000\n", 1), ("max 100000\n", None), (None, None)],
)
def test_a_quota_limits_the_cpus(tmp_path: Path, quota: str | None, cpus: int | None) -> None:
    file = tmp_path / "cpu.max"
    if quota is not None:
        file.write_text(quota)
    assert usable_cpus(file) == (cpus or len(os.sched_getaffinity(0)))
