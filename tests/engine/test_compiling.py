from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config

from eqr_core.engine.compiling import CompiledStep
from eqr_core.engine.randomness import initial_state
from eqr_core.model.operator import Operator
from tests.engine import tiny


# torch's compiler uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_step_that_cannot_be_compiled_goes_on_plain_after_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With no compiler of C++ that works, and with nothing compiled before."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    config = tiny.config(updates=3)
    operator = Operator(config, tiny.TASK)
    operator.load_state_dict(tiny.weights(config))
    operator.requires_grad_(False)
    e = operator.embed(torch.from_numpy(tiny.TASK.encode(tiny.GRID))[None])
    state = tuple(
        part[None] for part in initial_state(0, 0, operator.state_shape, operator.state_count)
    )
    step = CompiledStep(operator)
    no_compiler = torch._inductor.config.patch({"cpp.cxx": (str(tmp_path / "none"),)})
    logged = caplog.at_level(logging.WARNING, "eqr_core.engine.compiling")
    with no_compiler, torch.inference_mode(), logged:
        for _ in range(2):
            for made, plain in zip(step(state, e), operator.outer_step(state, e), strict=True):
                assert torch.equal(made, plain)
    assert [record.message[:42] for record in caplog.records] == [
        "torch could not compile the outer step (In"
    ]
