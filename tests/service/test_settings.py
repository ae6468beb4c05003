from __future__ import annotations

import inspect
import os
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app, serve
from service.security import KeyRing
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
        ({"max_depth": 63}, "max_depth"),
        ({"max_nfe": 1023}, "max_nfe"),
        ({"max_batch": 0}, "max_batch"),
        ({"cache_seconds": float("inf")}, "cache_seconds"),
        ({"cors_origins": "https://here.example,there"}, "cors_origins"),
        ({"cors_origins": "https://here.example/path"}, "cors_origins"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(given: dict[str, object], word: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings(**given)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_origins_and_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    settings = read_settings(cors_origins="https://a.example, http://b:8080", api_keys_file="keys")
    assert settings.cors_origins == ("https://a.example", "http://b:8080")
    assert settings.api_keys_file == tmp_path / "keys"
    assert read_settings(cors_origins="*").cors_origins == ("*",)


def test_the_stores_password_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQR_STORE_URL", "redis://:a-secret@here:1/0")
    settings = read_settings()
    assert "a-secret" not in repr(settings) + str(settings) + settings.model_dump_json()
    assert settings.store_url is not None
    assert "a-secret" in settings.store_url.get_secret_value()


def test_eqr_keys_new_prints_a_key_and_its_line(tmp_path: Path) -> None:
    printed = CliRunner().invoke(app, ["keys", "new", "alice"])
    assert printed.exit_code == 0
    token, line = printed.stdout.splitlines()
    (tmp_path / "keys").write_text(line)
    assert KeyRing(tmp_path / "keys").admit({"x-api-key": token}).name == "alice"
    assert token not in line
    wrong = CliRunner().invoke(app, ["keys", "new", "a b"])
    assert wrong.exit_code == 2


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
