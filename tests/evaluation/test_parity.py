from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from eqr_core.errors import ModelError
from eqr_core.evaluation.parity import Comparison, check_parity, run
from eqr_core.evaluation.parity.model import TokenRow
from eqr_core.evaluation.parity.selection import logit_change_score, pass_at, vote
from tests.evaluation.fixtures import write_facts, write_model, write_selection
from tests.evaluation.reference_net import TWISTS, Net

SHARED = Path(__file__).parents[3] / "shared" / "parity"


def token_net(twist: str = "") -> Net:
    return Net("eqr", True, 16, 6, 8, 2, 2, 2, 3, lambda_=0.9, twist=twist)


def attention_net(twist: str = "") -> Net:
    return Net("eqr", False, 12, 6, 16, 2, 1, 2, 2, expansion=3, twist=twist)


def trm_net(twist: str = "") -> Net:
    return Net("trm", True, 9, 5, 8, 2, 1, 2, 3, rope=False, twist=twist)


def failures(rows: list[Comparison]) -> dict[str, Comparison]:
    return {row.name: row for row in rows if not row.ok}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("parity") / "fixtures"
    maze = attention_net()
    write_model(root / "b_maze", maze, seed=2)
    write_model(root / "a_sudoku", token_net(), seed=1, prefix="_orig_mod.model.inner.")
    write_model(root / "c_trm", trm_net(), seed=3, prefix="model._orig_mod.inner.")
    write_selection(root / "d_selection", "b_maze", maze, seed=4)
    write_facts(root / "facts.json", {"sudoku": token_net(), "maze": maze, "trm": trm_net()})
    return root


def changed(folder: Path, tmp_path: Path, fixture: str) -> Path:
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy" / fixture


def edit_vectors(fixture: Path, **changes: torch.Tensor | None) -> None:
    vectors = load_file(fixture / "vectors.safetensors") | changes
    path = fixture / "vectors.safetensors"
    path.unlink()
    save_file({name: v for name, v in vectors.items() if v is not None}, path)


def edit_config(fixture: Path, **changes: Any) -> None:
    config = json.loads((fixture / "config.json").read_text()) | changes
    (fixture / "config.json").write_text(json.dumps(config))


def test_every_tensor_of_generated_fixtures_agrees(folder: Path) -> None:
    rows = check_parity(folder)
    assert not failures(rows)
    compared = {(row.fixture, row.name) for row in rows}
    for fixture in ("a_sudoku", "b_maze", "c_trm"):
        stored = set(load_file(folder / fixture / "vectors.safetensors"))
        given = {"inputs", "labels", "z_H_0", "z_L_0", "block_in", "level_injection"}
        given |= {"noise_eps", "noise_scale_used", "rms_in", "ce_logits", "ce_labels"}
        assert {name for f, name in compared if f == fixture} >= stored - given
    assert ("b_maze", "rope_sin") in compared
    assert ("c_trm", "q_continue_3") in compared
    assert ("d_selection", "top1 of our own logits") in compared
    assert ("facts", "trm buffers") in compared


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference's own fixtures are not here")
def test_every_tensor_of_the_reference_agrees() -> None:
    rows = check_parity(SHARED)
    assert not failures(rows)
    assert {row.fixture for row in rows} >= {"facts", "selection"}


@pytest.mark.parametrize("twist", TWISTS)
def test_a_wrong_function_is_noticed(twist: str, tmp_path: Path) -> None:
    attention = twist in ("interleaved rotary", "keys before queries")
    net = attention_net(twist) if attention else token_net(twist)
    write_model(tmp_path / "wrong", net, seed=5)
    wrong = failures(check_parity(tmp_path))
    name = "q_halt_1" if twist == "halting on the last token" else "logits_1"
    assert wrong[name].error > 10 * wrong[name].tolerance


def test_raw_weights_in_place_of_averaged_ones_are_noticed(folder: Path, tmp_path: Path) -> None:
    fixture = changed(folder, tmp_path, "a_sudoku")
    raw = load_file(fixture / "vectors.safetensors")["raw_logits_1"]
    edit_vectors(fixture, logits_1=raw)
    assert set(failures(check_parity(fixture.parent))) == {"logits_1"}


def test_a_changed_missing_or_unknown_tensor_is_a_row_that_is_not_ok(
    folder: Path, tmp_path: Path
) -> None:
    fixture = changed(folder, tmp_path, "a_sudoku")
    vectors = load_file(fixture / "vectors.safetensors")
    logits = vectors["logits_2"].clone()
    logits[1, 3, 2] += 2e-4
    nan = torch.full_like(vectors["z_L_1"], math.nan)
    edit_vectors(
        fixture,
        logits_2=logits,
        z_L_1=nan,
        mlp_out=None,
        odd=nan[:1].clone(),
        rms_out=logits[0].clone(),
    )
    wrong = failures(check_parity(fixture.parent))
    assert set(wrong) == {"logits_2", "z_L_1", "mlp_out", "odd", "rms_out"}
    assert wrong["logits_2"].error == pytest.approx(2e-4, rel=0.1)
    assert wrong["mlp_out"].note == "the tensor is missing"
    assert wrong["odd"].note == "not a known tensor"
    assert "shape" in wrong["rms_out"].note


def test_a_wrong_choice_or_metric_is_noticed(folder: Path, tmp_path: Path) -> None:
    fixture = changed(folder, tmp_path, "d_selection")
    config = json.loads((fixture / "config.json").read_text())
    metrics = config["aggregate_metrics_on_agg_preds"]
    metrics["different_init"]["different_init/pass@2"] += 0.01
    metrics["top_k=2"]["convergence_top_k/new"] = 1.0
    edit_config(fixture, window=2, aggregate_metrics_on_agg_preds=metrics)
    wrong = failures(check_parity(fixture.parent))
    assert {"scores", "different_init/pass@2", "top_k=2: new"} <= set(wrong)
    assert "logits[:, :2]" not in wrong


@pytest.mark.parametrize(
    ("section", "key", "value", "row"),
    [
        ("truncated_normal", "clip_bound_over_std", 2.0, "truncated_normal bounds"),
        ("initial_std", "q_head_bias", -4.0, "initial q_head bias"),
        ("initial_std", "linear", "1/fan_in", "initial std of head.weight"),
        ("find_multiple_256", "100", 256, "inner width of 100"),
        ("token_ids", "ignore_label_in_loss", 0, "ignored label"),
        ("colours", "red", 1, "colours"),
    ],
)
def test_a_wrong_fact_is_noticed(
    section: str, key: str, value: object, row: str, folder: Path, tmp_path: Path
) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    facts.setdefault(section, {})[key] = value
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    assert row in failures(check_parity(tmp_path))


def test_wrong_shapes_of_a_full_size_model_are_noticed(folder: Path, tmp_path: Path) -> None:
    facts = json.loads((folder / "facts.json").read_text())
    shapes = facts["full_size_models"]["trm"]["state_dict"]
    shapes["inner.L_level.layers.0.mlp.down_proj.weight"] = [8, 512]
    facts["full_size_models"]["sudoku"]["parameters"] += 1
    facts["token_ids"]["sudoku"]["digits"]["4"] = 9
    (tmp_path / "facts.json").write_text(json.dumps(facts))
    wrong = failures(check_parity(tmp_path))
    assert set(wrong) == {"trm shapes", "sudoku parameters", "sudoku tokens"}
    assert "blocks.0.mlp.down.weight" in wrong["trm shapes"].note


def test_an_unreadable_fixture_leaves_the_others(folder: Path, tmp_path: Path) -> None:
    fixture = changed(folder, tmp_path, "a_sudoku")
    (fixture / "state.pth").write_bytes(b"not a checkpoint")
    (fixture.parent / "c_trm" / "config.json").write_text("{")
    edit_config(fixture.parent / "d_selection", window="three")
    wrong = [row for row in check_parity(fixture.parent) if not row.ok]
    assert sorted({row.fixture for row in wrong}) == ["a_sudoku", "c_trm", "d_selection"]
    assert "state.pth" in next(row.note for row in wrong if row.fixture == "a_sudoku")


def test_exit_code_and_table(folder: Path, tmp_path: Path) -> None:
    text = io.StringIO()
    assert run(folder, Console(file=text, width=140)) == 0
    assert "mlp_t_out" in text.getvalue()
    assert "NO" not in text.getvalue()
    fixture = changed(folder, tmp_path, "a_sudoku")
    edit_vectors(fixture, mlp_out=None)
    text = io.StringIO()
    assert run(fixture.parent, Console(file=text, width=140)) == 1
    assert "the tensor is missing" in text.getvalue()


def test_a_folder_with_nothing_to_compare(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no fixture folders"):
        check_parity(tmp_path)


def test_score_votes_and_pass_rate() -> None:
    logits = torch.tensor([0.0, 1.0, 1.0, 4.0]).view(4, 1, 1, 1, 1).expand(4, 1, 1, 5, 4)
    assert logit_change_score(logits, 1).item() == pytest.approx(6.0)
    assert logit_change_score(logits, 2).item() == pytest.approx(3.0)
    assert logit_change_score(logits).item() == pytest.approx(8 / 3)
    assert logit_change_score(logits, 9).item() == pytest.approx(8 / 3)
    assert vote(torch.tensor([[1, 2], [3, 4], [3, 4], [1, 2]])).tolist() == [1, 2]
    right = torch.tensor([[True, False, False, True], [False, False, False, False]])
    assert pass_at(1, right) == pytest.approx(0.25)
    assert pass_at(2, right) == pytest.approx((1 - 1 / 6) / 2)
    assert pass_at(4, right) == pytest.approx(0.5)


def test_token_rows_are_tasks() -> None:
    row = TokenRow(3, 5)
    grid = ((4, 0, 1),)
    assert row.decode(row.encode(grid)) == grid
    assert (row.tokens, row.size, row.text(grid)) == (3, "1x3", "4 0 1")
    assert row.verify(grid, grid)
    assert not row.verify(grid, ((1, 2),))
