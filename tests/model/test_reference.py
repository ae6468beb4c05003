from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from eqr_core.errors import CheckpointError, ModelError
from eqr_core.model import pickles
from eqr_core.model.archive import Archive
from eqr_core.model.checkpoint import build_operator, load_checkpoint
from eqr_core.model.pickles import Inert, TensorView, read_pickle
from eqr_core.model.reference import import_reference, our_name, read_reference
from eqr_core.tasks.sudoku import Sudoku
from tests.evaluation.fixtures import arch, write_checkpoint
from tests.evaluation.reference_net import Net

SUDOKU = Net("eqr", True, 16, 6, 8, 2, 2, 2, 3, lambda_=0.9)
MAZE = Net("eqr", False, 25, 6, 8, 2, 1, 2, 2)
TRM = Net("trm", True, 16, 6, 8, 2, 1, 2, 3, rope=False)


def drawn(net: Net, seed: int) -> Net:
    net = replace(net, weights={})
    net.draw(torch.Generator().manual_seed(seed))
    return net


def write(path: Path, net: Net, prefix: str = "model.inner.", **changes: Any) -> Net:
    """A reference checkpoint whose raw weights are the averaged ones plus 1; returns the net."""
    net = drawn(net, 1)
    raw = {name: value + 1 for name, value in net.weights.items()}
    write_checkpoint(path, net, raw, prefix, **changes)
    return net


@pytest.mark.parametrize("prefix", ["model.inner.", "_orig_mod.model.inner.", "inner._orig_mod."])
def test_names_shapes_and_configuration(prefix: str, tmp_path: Path) -> None:
    net = write(tmp_path / "a.pth", SUDOKU, prefix)
    found = read_reference(tmp_path / "a.pth")
    config = found.operator
    assert (config.task, config.mixer, config.tokens) == ("sudoku", "token", 16)
    assert (config.hidden, config.blocks, config.cycles, config.updates) == (8, 2, 2, 3)
    assert (config.damping, config.noise, config.initial) == (0.1, 0.0, "random")
    assert (config.vocabulary, config.q_outputs, config.rotary) == (6, 2, True)
    assert (found.step, found.averaged, found.tokens) == (77, True, 16)
    theirs = net.weights["L_level.layers.1.mlp_t.down_proj.weight"].float()
    assert torch.equal(found.weights["blocks.1.mix.down.weight"], theirs)
    raw = read_reference(tmp_path / "a.pth", ema=False)
    assert not raw.averaged
    torch.testing.assert_close(raw.weights["blocks.1.mix.down.weight"], theirs + 1)


def test_trm_starts_come_from_the_model(tmp_path: Path) -> None:
    net = write(tmp_path / "a.pth", TRM)
    found = read_reference(tmp_path / "a.pth")
    assert (found.operator.initial, found.operator.damping) == ("fixed", 0.0)
    torch.testing.assert_close(found.weights["start"][0], net.weights["H_init"].float() + 1)
    torch.testing.assert_close(found.weights["start"][1], net.weights["L_init"].float() + 1)
    assert torch.equal(found.weights["embedding"], net.weights[embedding()].float())


def embedding() -> str:
    return "embed_tokens.embedding_weight"


def test_without_averaged_weights_the_raw_ones_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", SUDOKU, ema=None)
    assert not read_reference(tmp_path / "a.pth").averaged


def test_deflated_files_are_read(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", SUDOKU)
    with zipfile.ZipFile(tmp_path / "a.pth") as source:
        parts = {name: source.read(name) for name in source.namelist()}
    write_zip(tmp_path / "b.pth", parts)
    plain, deflated = (read_reference(tmp_path / name).weights for name in ("a.pth", "b.pth"))
    assert all(torch.equal(plain[name], deflated[name]) for name in plain)


def test_import_makes_a_checkpoint_that_loads_and_computes(tmp_path: Path) -> None:
    net = write(tmp_path / "a.pth", SUDOKU)
    card = import_reference(tmp_path / "a.pth", tmp_path / "out", "imported")
    weights, loaded = load_checkpoint(tmp_path / "out")
    assert loaded == card
    assert (card.name, card.task, card.sizes) == ("imported", "sudoku", ("4x4",))
    assert card.training["steps"] == 77
    assert card.tolerance is None
    operator = build_operator(weights, card, Sudoku((2, 2)))
    tokens = torch.randint(6, (2, 16), generator=torch.Generator().manual_seed(0))
    state = tuple(torch.randn(2, 16, 8, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    with torch.no_grad():
        logits, _ = operator.read(operator.outer_step(state, operator.embed(tokens)))
    high, low = (z.double() for z in state)
    expected, _ = net.read(net.step(high, low, net.embed(tokens))[0])
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=1e-5)


def test_import_checks_the_size_and_overwrites_nothing(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", SUDOKU)
    out = tmp_path / "out"
    with pytest.raises(CheckpointError, match="9x9, 81 cells; the network was made for 16"):
        import_reference(tmp_path / "a.pth", out, "imported", size="9x9")
    with pytest.raises(ModelError, match="no 2x8 Sudoku"):
        import_reference(tmp_path / "a.pth", out, "imported", size="2x8")
    write(tmp_path / "b.pth", replace(MAZE, tokens=81))
    with pytest.raises(ModelError, match="vocabulary of 6; sudoku 9x9 needs 11"):
        import_reference(tmp_path / "b.pth", out, "imported", task="sudoku")
    assert not out.exists()
    import_reference(tmp_path / "a.pth", out, "imported", size="4x4")
    before = (out / "card.json").read_bytes()
    with pytest.raises(CheckpointError, match="a checkpoint already"):
        import_reference(tmp_path / "a.pth", out, "other")
    assert (out / "card.json").read_bytes() == before


def test_sizes_of_a_maze_come_from_the_carry_or_the_caller(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", MAZE)
    card = import_reference(tmp_path / "a.pth", tmp_path / "out", "maze")
    assert (card.task, card.sizes, card.operator.mixer) == ("maze", ("5x5",), "attention")
    write(tmp_path / "b.pth", MAZE, carry=None)
    with pytest.raises(CheckpointError, match="size is not in the file"):
        import_reference(tmp_path / "b.pth", tmp_path / "two", "maze")
    card = import_reference(tmp_path / "b.pth", tmp_path / "two", "maze", size="4x6")
    assert card.sizes == ("4x6",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 16}, "hidden_size is 16"),
        ({"L_layers": 3}, "L_layers is 3"),
        ({"mlp_t": False}, "mlp_t is False"),
        ({"H_init_std": 0.5}, "H_init_std is 0.5"),
        ({"rms_norm_eps": 1e-6}, "rms_norm_eps"),
        ({"expansion": 200}, "expansion is 200"),
        ({"expansion": 64}, r"the tensor blocks.0.mix.down.weight is \[16, 256\].*\[16, 768\]"),
        ({"expansion": "4"}, "expansion is '4'"),
        ({"H_cycles": None}, "cycles is None"),
        ({"lambda_": "0.95"}, "lambda_ is '0.95', not a number"),
        ({"lambda_": 2}, "damping is -1"),
    ],
)
def test_configurations_that_disagree(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write(tmp_path / "a.pth", SUDOKU, config={"arch": arch(SUDOKU) | changes})
    with pytest.raises(CheckpointError, match=message) as caught:
        read_reference(tmp_path / "a.pth")
    assert "a.pth" in str(caught.value)


def test_position_encodings_that_are_not_ours(tmp_path: Path) -> None:
    config = {"arch": arch(MAZE) | {"pos_encodings": "rope2d"}}
    write(tmp_path / "a.pth", MAZE, config=config)
    with pytest.raises(CheckpointError, match="pos_encodings is 'rope2d'"):
        read_reference(tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model is missing"),
        ({"model": {}}, "the tensor embedding is missing"),
        ({"model": {"lm_head.weight": 3}}, "no tensor of floating-point numbers"),
        ({"model": {"lm_head.weight": torch.ones(2, dtype=torch.int32)}}, "floating-point"),
        ({"model": {"puzzle_emb.weights": torch.ones(2, 2)}}, "puzzle_emb.weights has no place"),
        (
            {"model": {"inner.H_init": torch.ones(2), "model.inner.H_init": torch.ones(2)}},
            "twice",
        ),
        ({"ema": {"mu": 0.9}}, "ema.shadow is missing"),
        ({"ema": 7}, "ema is missing or no dictionary"),
        ({"config": {}}, "config.arch is missing"),
        ({"step": "many"}, "step is missing"),
    ],
)
def test_checkpoints_without_what_is_needed(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    if "model" in changes:
        changes = changes | {"ema": None}
    write(tmp_path / "a.pth", SUDOKU, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_reference(tmp_path / "a.pth")


def test_weights_of_other_shapes(tmp_path: Path) -> None:
    net = drawn(SUDOKU, 1)
    for name, value, message in (
        ("lm_head.weight", torch.ones(6, 9), r"head.weight is \[6, 9\]"),
        (embedding(), torch.ones(6), "wrong shape"),
        ("H_init", torch.ones(8), "H_init and L_init do not agree"),
        ("L_level.layers.0.self_attn.o_proj.weight", torch.ones(8, 8), "has no tensor"),
    ):
        changed = replace(net, weights=net.weights | {name: value})
        write_checkpoint(tmp_path / "a.pth", changed, changed.weights)
        with pytest.raises(CheckpointError, match=message):
            read_reference(tmp_path / "a.pth")


def test_a_vocabulary_that_tells_no_task(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", replace(SUDOKU, vocabulary=7))
    with pytest.raises(CheckpointError, match="tell no task; name it"):
        read_reference(tmp_path / "a.pth")
    assert read_reference(tmp_path / "a.pth", task="colours").operator.task == "colours"


def test_names() -> None:
    assert our_name("_orig_mod.model._orig_mod.inner.q_head.bias") == "q_head.bias"
    ours = our_name("L_level.layers.12.self_attn.qkv_proj.weight")
    assert ours == "blocks.12.mix.qkv.weight"
    for name in ("", "model", "q_head", "L_level.layers.0.mlp", "optimizer.q_head.bias"):
        with pytest.raises(CheckpointError, match="no place"):
            our_name(name)


# Hostile files. Each would touch the canary if anything of it ran.


def write_zip(path: Path, parts: dict[str, bytes], root: str = "") -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items():
            file.writestr(root + name, data)


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.what


class SetsState:
    """Pickles as a dictionary whose state is set to what a call returns."""

    def __init__(self, call: Calls) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return collections.OrderedDict, (), {"__setstate__": self.call}


def hostile(canary: Path) -> dict[str, bytes]:
    touch = f"open({str(canary)!r}, 'w').close()"
    objects: dict[str, object] = {
        "os.system": Calls(os.system, f"touch {canary}"),
        "eval": Calls(builtins.eval, touch),
        "exec": Calls(builtins.exec, touch),
        "nested getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "in a dictionary": {"model": [Calls(os.system, f"touch {canary}")]},
        "as a key": {Calls(os.system, f"touch {canary}"): 1},
        "state of an allowed class": SetsState(Calls(os.system, f"touch {canary}")),
        "torch.load": Calls(torch.load, str(canary)),
        "numpy": Calls(np.load, str(canary), None, True),
    }
    data = {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in objects.items()
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    }
    shell = f"touch {canary}".encode()
    data |= {
        "a class that holds a function": b"cmodels.eqr os\nsystem\n(S'x'\ntR.",
        "instance": b"(S'" + shell + b"'\nios\nsystem\n.",
        "object": b"(cos\nsystem\nS'" + shell + b"'\no.",
        "new object": b"\x80\x02cposix\nsystem\n(S'" + shell + b"'\nt\x81.",
        "inherited name": b"\x80\x04\x8c\x0bcollections\x8c\x1bOrderedDict.__init__.__self__\x93.",
        "dotted name": b"\x80\x04\x8c\x05torch\x8c\x10serialization.os\x93.",
        "extension": b"\x80\x02\x82\x01.",
        "next buffer": b"\x80\x05\x97.",
        "textual persistent id": b"Pos.system\n.",
    }
    return data


@pytest.mark.parametrize("name", hostile(Path("canary")))
def test_hostile_pickles_run_nothing_and_are_refused(name: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    data = hostile(canary)[name]
    write_zip(tmp_path / "a.pth", {"data.pkl": data, "data/0": b"1234"}, "archive/")
    b"x".decode("cp437")  # zipfile imports this encoding at its first use
    modules = set(sys.modules)
    with pytest.raises(CheckpointError, match=r"a\.pth: the pickle") as caught:
        read_reference(tmp_path / "a.pth")
    assert "\n" not in str(caught.value)
    assert not canary.exists()
    assert set(sys.modules) == modules


def test_the_hostile_pickles_are_armed(tmp_path: Path) -> None:
    """Python's own machine does run them, so that refusing them is worth something."""
    canary = tmp_path / "canary"
    for name in ("os.system, protocol 2", "eval, protocol 0", "as a key, protocol 4", "instance"):
        pickle.loads(hostile(canary)[name])
        assert canary.exists()
        canary.unlink()


def test_the_refusal_names_the_global() -> None:
    for function, name in ((os.system, "posix.system"), (builtins.eval, "builtins.eval")):
        with pytest.raises(CheckpointError, match=name):
            read_pickle(pickle.dumps(Calls(function, "1"), 4))


def test_allowed_names_yield_nothing_but_stand_ins() -> None:
    for path in (*pickles.INERT, "models.eqr.ModelCarry", "models.os.system"):
        module, name = path.rsplit(".", 1)
        call = f"c{module}\n{name}\n(Vtouch canary\ntR.".encode()
        assert read_pickle(call) == Inert()
    with pytest.raises(CheckpointError, match="wrong arguments"):
        read_pickle(b"ccollections\nOrderedDict\n(Vx\ntR.")
    with pytest.raises(CheckpointError, match="wrong arguments"):
        read_pickle(b"ctorch._utils\n_rebuild_tensor_v2\n(tR.")


@dataclass
class Reference:
    """Pickles as a persistent id."""

    id: object


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.id if isinstance(value, Reference) else None


def tensor_pickle(
    storage: object = ("storage", torch.FloatStorage, "0", "cpu", 4),
    offset: object = 0,
    size: object = (2, 2),
    stride: object = (2, 1),
) -> bytes:
    rebuild = torch._utils._rebuild_tensor_v2
    value = Calls(rebuild, Reference(storage), offset, size, stride, False, None)
    out = io.BytesIO()
    Pickler(out, 2).dump({"model": {"H_init": value}})
    return out.getvalue()


def test_a_plain_tensor_is_read(tmp_path: Path) -> None:
    data = torch.arange(4.0).numpy().tobytes()
    write_zip(tmp_path / "a.pth", {"data.pkl": tensor_pickle(), "data/0": data}, "x/")
    with Archive(tmp_path / "a.pth") as archive:
        match archive.content:
            case {"model": {"H_init": TensorView() as view}}:
                assert archive.tensor(view).tolist() == [[0, 1], [2, 3]]
            case _:
                pytest.fail("no tensor was found")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, "outside its storage"),
        ({"offset": -1}, "impossible shape"),
        ({"offset": 2**70}, "outside its storage"),
        ({"offset": "0"}, "no storage"),
        ({"size": (2, 3)}, "outside its storage"),
        ({"size": (2**31, 2**31)}, "outside its storage"),
        ({"size": (2**80, 1)}, "impossible shape"),
        ({"size": (-1, 2)}, "impossible shape"),
        ({"size": [2, 2]}, "impossible shape"),
        ({"size": (2,)}, "impossible shape"),
        ({"size": (1,) * 9, "stride": (1,) * 9}, "impossible shape"),
        ({"stride": (2, -1)}, "impossible shape"),
        ({"stride": (2**40, 1)}, "impossible shape"),
        ({"storage": ("storage", torch.FloatStorage, "../1", "cpu", 4)}, "no tensor storage"),
        ({"storage": ("storage", torch.FloatStorage, "0", "cpu", -4)}, "no tensor storage"),
        ({"storage": ("storage", torch.FloatStorage, 0, "cpu", 4)}, "no tensor storage"),
        ({"storage": ("storage", collections.OrderedDict, "0", "cpu", 4)}, "no tensor storage"),
        ({"storage": ("module", torch.FloatStorage, "0", "cpu", 4)}, "no tensor storage"),
        ({"storage": "storage"}, "no tensor storage"),
        ({"storage": ("storage", torch.FloatStorage)}, "no tensor storage"),
    ],
)
def test_tensors_that_lie(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_pickle(tensor_pickle(**changes))


@pytest.mark.parametrize(
    ("storage", "data", "message"),
    [
        (("storage", torch.FloatStorage, "0", "cpu", 4), b"\0" * 12, "has 12 bytes"),
        (("storage", torch.FloatStorage, "0", "cpu", 4), b"\0" * 20, "claims 20 bytes"),
        (("storage", torch.FloatStorage, "7", "cpu", 4), b"\0" * 16, "data/7 is missing"),
        (("storage", torch.FloatStorage, "0", "cpu", 2**40), b"\0" * 16, "has 16 bytes"),
    ],
)
def test_storages_that_lie(
    storage: tuple[Any, ...], data: bytes, message: str, tmp_path: Path
) -> None:
    parts = {"data.pkl": tensor_pickle(storage), "data/0": data}
    write_zip(tmp_path / "a.pth", parts, "x/")
    with Archive(tmp_path / "a.pth") as archive:
        content: Any = archive.content
        with pytest.raises(CheckpointError, match=message):
            archive.tensor(content["model"]["H_init"])


def test_a_small_storage_is_not_blown_up(tmp_path: Path) -> None:
    size = (2**30, 2**10)
    parts = {"data.pkl": tensor_pickle(size=size, stride=(0, 0)), "data/0": b"\0" * 16}
    write_zip(tmp_path / "a.pth", parts, "x/")
    with Archive(tmp_path / "a.pth") as archive:
        content: Any = archive.content
        with pytest.raises(CheckpointError, match="repeats its storage"):
            archive.tensor(content["model"]["H_init"])
    with pytest.raises(CheckpointError, match="claims 1099511627776 weights"):
        read_reference(tmp_path / "a.pth")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    huge = b"\0" * (65 * 2**20)
    write_zip(tmp_path / "a.pth", {"data.pkl": huge}, "x/")
    assert (tmp_path / "a.pth").stat().st_size < 2**20
    with pytest.raises(CheckpointError, match=r"data\.pkl claims 68157440 bytes"):
        read_reference(tmp_path / "a.pth")


def test_pickles_that_go_on_for_ever() -> None:
    with pytest.raises(CheckpointError, match="more than 2000000 operations"):
        read_pickle(b"N" * 2_000_000 + b".")


@pytest.mark.parametrize(
    "data",
    [
        *(b"", b".", b"N", b"\x80\x02", b"}u.", b"h\x05.", b"e.", b"(", b"t.", b"\xff", b"I9z\n."),
        *(b"\x80\x02X\xff\xff\xff\x7fabc.", b"\x8c\x02\xff\xff.", b"\x8b\xff\xff\xff\x7f."),
    ],
)
def test_pickles_that_are_damaged(data: bytes) -> None:
    with pytest.raises(CheckpointError, match="damaged"):
        read_pickle(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"Na.", "damaged"),
        (b"NNa.", "appends to something that is no list"),
        (b"NNNs.", "sets an item of something that is no dictionary"),
        (b"}NNs.", "a key that is neither text nor a number"),
        (b"NNR.", "calls something that is no function"),
        (b"Vx\n(tR.", "calls something that is no function"),
        (b"]Nb.", "sets the state of something that has none"),
        (b"NN\x93.", "names a global by something else than text"),
        (b"NQ.", "refers to something that is no tensor storage"),
        (b"\x8f.", "operation EMPTY_SET is not allowed"),
    ],
)
def test_operations_on_the_wrong_things(data: bytes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_pickle(data)


@pytest.mark.parametrize("protocol", range(1, pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_as_python_reads_them(protocol: int) -> None:
    shared = [1, 2]
    value = {
        "a": [None, True, False, 0, -1, 255, 70_000, 2**31, -(2**63), 2**200, 1.5, float("inf")],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "text": ["", "é", "x" * 300],
        "shared": [shared, shared],
        3: {"nested": [{}]},
    }
    assert read_pickle(pickle.dumps(value, protocol)) == value


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(CheckpointError, match="No such file"):
        read_reference(path)
    with pytest.raises(CheckpointError, match=r"tmp|directory"):
        read_reference(tmp_path)
    for data in (b"", b"no zip", pickle.dumps({"model": {}})):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=r"not a file of torch\.save"):
            read_reference(path)
    write_zip(path, {"a/data.pkl": b"N.", "b/data.pkl": b"N."})
    with pytest.raises(CheckpointError, match=r"no single data\.pkl"):
        read_reference(path)
    write_zip(path, {"a/data.pkl": b"N.", "a/byteorder": b"big"})
    with pytest.raises(CheckpointError, match="byte order"):
        read_reference(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as file:
        file.writestr("a/data.pkl", b"N.")
    with pytest.raises(CheckpointError, match="torch does not write"):
        read_reference(path)
    write_zip(path, {"a/data.pkl": b"N."})
    with pytest.raises(CheckpointError, match="the checkpoint is missing or no dictionary"):
        read_reference(path)


def test_truncated_and_damaged_files(tmp_path: Path) -> None:
    write(tmp_path / "a.pth", SUDOKU)
    data = (tmp_path / "a.pth").read_bytes()
    path = tmp_path / "b.pth"
    for length in range(0, len(data), len(data) // 20):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError):
            read_reference(path)
    whole = read_reference(tmp_path / "a.pth").weights
    for place in range(0, len(data), len(data) // 80):
        changed = bytearray(data)
        changed[place] ^= 0xFF
        path.write_bytes(changed)
        try:
            weights = read_reference(path).weights
        except CheckpointError:
            continue
        # the byte was padding, or in a part that is not read
        assert all(torch.equal(weights[name], whole[name]) for name in whole)
