"""Writes fixture folders in the layout of the reference's own, computed by `reference_net`."""

from __future__ import annotations

import itertools
import json
import math
import random
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.evaluation.reference_net import Net, multiple_of_256

STEPS = 3
PUZZLES = 3
LATENTS = 2


@contextmanager
def reference_classes(kind: str) -> Iterator[types.ModuleType]:
    """A module `models.eqr` or `models.trm` with the carries, importable only inside."""
    package, module = types.ModuleType("models"), types.ModuleType(f"models.{kind}")
    carry = ["inner_carry", "steps", "halted", "current_data", "global_step"]
    for name, fields in (("LatentCarry", ["z_H", "z_L"]), ("ModelCarry", carry)):
        made = make_dataclass(name, fields)
        made.__module__ = f"models.{kind}"
        setattr(module, name, made)
    sys.modules |= {"models": package, f"models.{kind}": module}
    try:
        yield module
    finally:
        del sys.modules["models"], sys.modules[f"models.{kind}"]


def arch(net: Net) -> dict[str, Any]:
    values = {
        "name": f"{net.kind}@Model",
        "loss": {"name": "losses@ACTLossHead", "loss_type": "stablemax_cross_entropy"},
        "H_cycles": net.h_cycles,
        "L_cycles": net.l_cycles,
        "H_layers": 0,
        "L_layers": net.layers,
        "hidden_size": net.hidden,
        "num_heads": net.heads,
        "expansion": net.expansion,
        "pos_encodings": "rope" if net.rope else "none",
        "mlp_t": net.mlp_t,
        "board_height": None,
    }
    if net.kind == "eqr":
        values |= {"lambda_": net.lambda_, "noise_scale": 0.0, "H_init_std": 1.0}
    return values


def checkpoint(net: Net, raw: dict[str, Tensor], prefix: str, **changes: Any) -> dict[str, Any]:
    """The dictionary that the reference's save routine passes to torch.save."""
    buffers = ("H_init", "L_init")
    model = OrderedDict((prefix + name, value.float()) for name, value in raw.items())
    shadow = {prefix + n: v.float() for n, v in net.weights.items() if n not in buffers}
    module = sys.modules[f"models.{net.kind}"]
    state = torch.zeros(2, net.tokens, net.hidden)
    carry = module.ModelCarry(
        inner_carry=module.LatentCarry(z_H=state, z_L=state.clone()),
        steps=torch.zeros(2, dtype=torch.int32),
        halted=torch.ones(2, dtype=torch.bool),
        current_data={"inputs": torch.zeros(2, net.tokens, dtype=torch.int32)},
        global_step=None,
    )
    return {
        "step": 77,
        "total_steps": 100,
        "model": model,
        "optimizers": [{"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}],
        "optimizer_lrs": [1e-4],
        "carry": carry,
        "rng": {"torch": torch.random.get_rng_state(), "cuda": None},
        "numpy": np.random.RandomState(0).get_state(),
        "python": random.Random(0).getstate(),
        "train_dataset": None,
        "iteration": 3,
        "config": {"arch": arch(net), "dataset": {"path": "data"}, "lr": 1e-4},
        "ema": {"mu": 0.999, "shadow": shadow},
        "wandb_run_id": "test",
    } | changes


def write_checkpoint(
    path: Path, net: Net, raw: dict[str, Tensor], prefix: str = "model.inner.", **changes: Any
) -> None:
    with reference_classes(net.kind):
        torch.save(checkpoint(net, raw, prefix, **changes), path)


def write_model(folder: Path, net: Net, seed: int, prefix: str = "model.inner.") -> None:
    """A model fixture: config.json, vectors.safetensors and the checkpoint."""
    generator = torch.Generator().manual_seed(seed)
    net.draw(generator)
    averaged = net.weights
    other = replace(net, weights={})
    other.draw(generator)
    raw = other.weights | {n: v for n, v in averaged.items() if n.endswith("_init")}
    folder.mkdir(parents=True)
    write_checkpoint(folder / "state.pth", net, raw, prefix)
    vectors = _vectors(net, replace(net, weights=raw), generator)
    save_file(vectors, folder / "vectors.safetensors")
    config = {
        "kind": net.kind,
        "seq_len": net.tokens,
        "vocab_size": net.vocabulary,
        "arch": arch(net),
        "mlp_intermediate": multiple_of_256(net.hidden, net.expansion),
        "mlp_t_intermediate": multiple_of_256(net.tokens, net.expansion) if net.mlp_t else None,
        "n_params": sum(v.numel() for n, v in averaged.items() if not n.endswith("_init")),
        "outer_steps_recorded": STEPS,
        "num_puzzles": PUZZLES,
        "num_puzzles_with_latents": LATENTS,
        "checkpoint": {"file": "state.pth", "step": 77, "ema_mu": 0.999},
        "tolerance": {"atol": 1e-4},
    }
    (folder / "config.json").write_text(json.dumps(config))


def _vectors(net: Net, raw: Net, generator: torch.Generator) -> dict[str, Tensor]:
    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).bfloat16()

    def whole(high: int, *shape: int) -> Tensor:
        return torch.randint(high, shape, generator=generator, dtype=torch.int32)

    n, d = net.tokens, net.hidden
    inputs, labels = whole(net.vocabulary, PUZZLES, n), whole(net.vocabulary, PUZZLES, n)
    labels[0, :3] = -100
    out: dict[str, Tensor] = {"inputs": inputs, "labels": labels}
    if net.kind == "trm":
        out |= {name: net.weights[name] for name in ("H_init", "L_init")}
        high, low = (net.weights[name].expand(PUZZLES, n, d) for name in ("H_init", "L_init"))
    else:
        out |= {name: normal(PUZZLES, n, d) for name in ("z_H_0", "z_L_0")}
        high, low = (out[name].double() for name in ("z_H_0", "z_L_0"))
    out |= _steps(net, inputs, labels, high, low)
    logits, q = raw.read(raw.step(high, low, raw.embed(inputs))[0])
    out |= {"raw_logits_1": logits, "raw_q_halt_1": q[:, 0]}

    x, injection = normal(1, n, d), normal(1, n, d)
    wide = x.double()
    out |= {
        "embed_scaled": net.embed(torch.arange(net.vocabulary)),
        "block_in": x,
        "block_out": net.block(0, wide),
        "mlp_out": net.swiglu("L_level.layers.0.mlp", wide),
        "level_injection": injection,
        "level_out": net.level(wide, injection.double()),
    }
    if net.mlp_t:
        mixed = net.swiglu("L_level.layers.0.mlp_t", wide.transpose(1, 2))
        out["mlp_t_out"] = mixed.transpose(1, 2)
    else:
        out["attn_out"] = net.attention("L_level.layers.0.self_attn", wide)
        if net.rope:
            out["rope_cos"], out["rope_sin"] = net.rope_tables()
    if net.kind == "eqr":
        eps = normal(1, n, d)
        scale = torch.tensor(0.3)
        noisy = out["level_out"] + scale.double() * eps.double()
        out |= {"noise_eps": eps, "noise_scale_used": scale, "level_out_noisy": noisy}
    rms = torch.randn(4, d, generator=generator) * torch.tensor([[0.0], [1e-4], [1.0], [30.0]])
    ce_logits = 20 * torch.randn(2, 5, net.vocabulary, generator=generator)
    ce_logits[0, 0] = 0
    ce_labels = whole(net.vocabulary, 2, 5)
    ce_labels[1, 1] = -100
    pairs = zip(ce_logits.flatten(0, 1), ce_labels.flatten().tolist(), strict=True)
    losses = [_loss(values, label) for values, label in pairs]
    out |= {"rms_in": rms, "rms_out": net.norm(rms.double()), "ce_logits": ce_logits}
    out |= {"ce_labels": ce_labels, "ce_loss": torch.tensor(losses, dtype=torch.float64).view(2, 5)}
    double = {"lm_loss", "total_loss", "ce_loss"}
    return {
        name: (v.float() if v.dtype == torch.float64 and name not in double else v).contiguous()
        for name, v in out.items()
    }


def _loss(logits: Tensor, label: int) -> float:
    """Stablemax cross-entropy of one token, in Python's own numbers."""
    if label == -100:
        return 0.0
    s = [v + 1 if v >= 0 else 1 / (1 - v) for v in logits.double().tolist()]
    return -math.log(s[label] / sum(s))


def _steps(net: Net, inputs: Tensor, labels: Tensor, high: Tensor, low: Tensor) -> dict[str, Any]:
    out: dict[str, Any] = {}
    rows: dict[str, list[Any]] = {"residual": [], "lm_loss": [], "q_halt_loss": []}
    x = net.embed(inputs)
    for t in range(1, STEPS + 1):
        new = net.step(high, low, x)
        change = torch.cat([new[0] - high, new[1] - low], dim=1)
        high, low = new
        logits, q = net.read(high)
        out |= {f"z_H_{t}": high[:LATENTS], f"z_L_{t}": low[:LATENTS], f"logits_{t}": logits}
        out[f"q_halt_{t}"] = q[:, 0]
        if net.kind == "trm":
            out[f"q_continue_{t}"] = q[:, 1]
        rows["residual"].append([row.square().sum().sqrt().item() for row in change])
        answer = halting = 0.0
        for puzzle in range(PUZZLES):
            kept = [i for i in range(net.tokens) if labels[puzzle, i] != -100]
            pairs = [(logits[puzzle, i], int(labels[puzzle, i])) for i in kept]
            answer += sum(_loss(*pair) for pair in pairs) / len(kept)
            right = all(int(values.argmax()) == label for values, label in pairs)
            p = 1 / (1 + math.exp(-q[puzzle, 0].item()))
            halting -= math.log(p if right else 1 - p)
        rows["lm_loss"].append(answer)
        rows["q_halt_loss"].append(halting)
    out |= {name: torch.tensor(values, dtype=torch.float64) for name, values in rows.items()}
    out["total_loss"] = out["lm_loss"] + 0.5 * out["q_halt_loss"]
    return out


def write_selection(folder: Path, model: str, net: Net, seed: int, steps: int = 5) -> None:
    """A selection fixture of 3 inputs and 6 trajectories with the weights of `net`."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randint(net.vocabulary, (3, net.tokens), generator=generator)
    shape = (2, 3, 6, net.tokens, net.hidden)
    start = torch.randn(shape, generator=generator).bfloat16()
    x = net.embed(inputs).repeat_interleave(6, dim=0)
    high, low = (part.double().flatten(0, 1) for part in start)
    seen: dict[str, list[Tensor]] = {"logits": [], "q_halt": [], "residual": []}
    for _ in range(steps):
        new = net.step(high, low, x)
        change = torch.cat([new[0] - high, new[1] - low], dim=1).flatten(1)
        high, low = new
        logits, q = net.read(high)
        seen["logits"].append(logits.float().unflatten(0, (3, 6)))
        seen["q_halt"].append(q[:, 0].float().unflatten(0, (3, 6)))
        seen["residual"].append(change.norm(dim=1).float().unflatten(0, (3, 6)))
    out = {name: torch.stack(values) for name, values in seen.items()}
    changes = [(b - a).pow(2).sum(-1).sqrt() for a, b in itertools.pairwise(out["logits"])]
    scores = {w: sum(c.mean(-1) for c in changes[-w:]) / w for w in range(1, steps)}
    window = 3
    labels = torch.randint(1, net.vocabulary, (3, net.tokens), generator=generator)
    preds = labels[:, None].repeat(1, 6, 1)
    for i, j in ((0, 1), (0, 4), (1, 0), (1, 2), (1, 5), (2, 3)):
        preds[i, j, 2 + j % 2] += 1
    labels[:, 0] = -100
    metrics = {"different_init": _breadth(preds.tolist(), labels.tolist())}
    for k in (1, 2, 4):
        metrics[f"top_k={k}"] = _top(preds.tolist(), labels.tolist(), scores[window].tolist(), k)
    out |= {
        "inputs": inputs.int(),
        "scores": scores[window],
        "scores_window_1": scores[1],
        "scores_all": scores[steps - 1],
        "top1": scores[window].argmin(1),
        "order": scores[window].argsort(dim=1),
        "preds": out["logits"][-1].argmax(-1).int(),
        "z_H_0": start[0, :2].clone(),
        "z_L_0": start[1, :2].clone(),
        "agg_preds": preds.int(),
        "agg_labels": labels.int(),
    }
    folder.mkdir(parents=True)
    save_file(out, folder / "vectors.safetensors")
    best = {str(w): scores[w].argmin(1).tolist() for w in (1, 2)}
    config = {
        "model_fixture": model,
        "window": window,
        "top1_by_window": best | {"all": scores[steps - 1].argmin(1).tolist()},
        "aggregate_metrics_on_agg_preds": metrics,
    }
    (folder / "config.json").write_text(json.dumps(config))


Rows = list[list[list[int]]]


def _is_right(row: list[int], label: list[int]) -> bool:
    return all(a == b or b == -100 for a, b in zip(row, label, strict=True))


def _share(flags: list[list[bool]], k: int) -> float:
    """pass@k by trying every draw of k trajectories."""
    rates = []
    for row in flags:
        draws = list(itertools.combinations(row, k))
        rates.append(sum(any(draw) for draw in draws) / len(draws))
    return sum(rates) / len(rates)


def _breadth(preds: Rows, labels: list[list[int]]) -> dict[str, float]:
    flags = [
        [_is_right(row, label) for row in rows] for rows, label in zip(preds, labels, strict=True)
    ]
    winners = [max(rows, key=rows.count) for rows in preds]
    pairs = list(zip(winners, labels, strict=True))
    exact = sum(_is_right(*pair) for pair in pairs) / len(pairs)
    cells = [a == b for pair in pairs for a, b in zip(*pair, strict=True) if b != -100]
    return {
        "different_init/avg_pass_rate": sum(map(sum, flags)) / sum(map(len, flags)),
        "different_init/any_correct": sum(map(any, flags)) / len(flags),
        "different_init/majority_vote_acc": exact,
        "different_init/total_samples": len(flags),
        "different_init/n": len(flags[0]),
        "majority_vote/exact_accuracy": exact,
        "majority_vote/accuracy": sum(cells) / len(cells),
        "majority_vote/num_samples": len(flags),
        **{f"different_init/pass@{k}": _share(flags, k) for k in (1, 2, 4)},
    }


def _top(
    preds: Rows, labels: list[list[int]], scores: list[list[float]], k: int
) -> dict[str, float]:
    best = [sorted(range(len(row)), key=row.__getitem__)[:k] for row in scores]
    flags = [
        [_is_right(rows[j], label) for j in order]
        for rows, label, order in zip(preds, labels, best, strict=True)
    ]
    chosen = [row[j] for row, order in zip(scores, best, strict=True) for j in order]
    out = {
        "exact_accuracy": sum(map(sum, flags)) / (len(flags) * k),
        "any_correct": sum(map(any, flags)) / len(flags),
        "avg_convergence_score": sum(chosen) / len(chosen),
        "total_samples": len(flags),
        "k": k,
    }
    for j in range(1, k + 1):
        out[f"cumulative_exact_acc_top{j}"] = sum(sum(row[:j]) for row in flags) / (len(flags) * j)
    for j in (1, 2):
        if j < k:
            out[f"pass@{j}"] = _share(flags, j)
    return {f"convergence_top_k/{name}": value for name, value in out.items()}


def write_facts(path: Path, nets: dict[str, Net]) -> None:
    """A facts.json; the normal values come from bisection on math.erf."""
    edge = math.erf(math.sqrt(2))
    density = math.exp(-2) / math.sqrt(2 * math.pi)
    cut = math.sqrt(1 - 4 * density / edge)
    table = [
        {"u": u, "x_for_std_1": math.sqrt(2) / cut * _inverse_erf(u)} for u in (-0.8, -0.2, 0, 0.7)
    ]
    models = {}
    for name, net in nets.items():
        shapes = {f"inner.{key}": list(shape) for key, shape in net.shapes().items()}
        parameters = sum(math.prod(shape) for shape in shapes.values())
        if net.kind == "trm":
            shapes |= {"inner.H_init": [net.hidden], "inner.L_init": [net.hidden]}
        models[name] = {
            "parameters": parameters,
            "persistent_buffer_elements": 2 * net.hidden if net.kind == "trm" else 0,
            "seq_len": net.tokens,
            "vocab_size": net.vocabulary,
            "state_dict": shapes,
        }
    facts = {
        "truncated_normal": {
            "upper": 2.0,
            "compensated_std_over_std": 1 / cut,
            "uncompensated_truncated_std": cut,
            "clip_bound_over_std": 2 / cut,
            "resulting_std_over_std": 1.0,
            "uniform_range": [-edge, edge],
            "table": table,
        },
        "initial_std": {
            "embed_tokens": "1/sqrt(hidden)",
            "linear": "1/sqrt(fan_in)",
            "q_head_weight": "all zero",
            "q_head_bias": -5.0,
        },
        "full_size_models": models,
        "find_multiple_256": {str(n): multiple_of_256(n, 4) for n in (8, 100, 333, 512)},
        "token_ids": {
            "sudoku": {
                "vocab_size": 6,
                "pad": 0,
                "blank": 1,
                "digits": {str(d): d + 1 for d in range(1, 5)},
            },
            "ignore_label_in_loss": -100,
        },
    }
    path.write_text(json.dumps(facts))


def _inverse_erf(u: float) -> float:
    low, high = -6.0, 6.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if math.erf(middle) < u else (low, middle)
    return low
