"""`make proto`: the Python stubs in service/stubs, made from eqr/v1/solver.proto and not edited.

Takes the folder to write to as its argument, service/stubs where there is none.
"""

from __future__ import annotations

import sys
from pathlib import Path

import grpc_tools.protoc

HERE = Path(__file__).parent
SOURCE = "eqr/v1/solver.proto"
STUBS = HERE.parent / "service" / "stubs"
NAMES = ("solver_pb2.py", "solver_pb2.pyi", "solver_pb2_grpc.py")


def generate(out: Path) -> None:
    """Write the stubs to `out`; SystemExit where the file has a fault."""
    made = out / "eqr" / "v1"
    code = grpc_tools.protoc.main(
        [
            "protoc",
            f"-I{HERE}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            SOURCE,
        ]
    )
    if code:
        raise SystemExit(code)
    for name in NAMES:
        text = (made / name).read_text()
        # The compiler takes the folders of the .proto for packages, in the import and in the name
        # that pickle finds the messages by.
        for found, meant in (
            ("from eqr.v1 import", "from service.stubs import"),
            ("'eqr.v1.solver_pb2'", "'service.stubs.solver_pb2'"),
        ):
            text = text.replace(found, meant)
        (out / name).write_text(text)
        (made / name).unlink()
    made.rmdir()
    made.parent.rmdir()


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else STUBS)
