"""Generated and mutated requests against a service: `python -m benchmarks.fuzz --help`.

Without `--url` and `--target` it starts one, with small ceilings so that no case takes long.
"""

from __future__ import annotations

import json
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.fuzz_rest import fuzz_rest
from benchmarks.fuzz_rpc import fuzz_rpc


def main(
    url: Annotated[str | None, typer.Option(help="A running service's REST address.")] = None,
    target: Annotated[str | None, typer.Option(help="Its gRPC address, host:port.")] = None,
    cases: Annotated[int, typer.Option(help="Requests over REST, and as many over gRPC.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Decides the cases.")] = 0,
) -> None:
    """Print how often each operation gave each status; fail where one was a fault."""
    with ExitStack() as stack:
        if (url is None) != (target is None):
            raise typer.BadParameter("--url and --target go together")
        if url is None or target is None:
            url, target = stack.enter_context(_Service())
        told = {"rpc": fuzz_rpc(target, cases, seed), "rest": fuzz_rest(url, cases, seed)}
    for name, counts in told.items():
        typer.echo(json.dumps({"interface": name, "cases": counts.total(), **counts}, indent=2))


class _Service(ExitStack):
    """A service of this machine's; gives its REST and gRPC addresses."""

    def __enter__(self) -> tuple[str, str]:  # type: ignore[override]
        from service.local import local_service
        from service.settings import read_settings

        folder = self.enter_context(tempfile.TemporaryDirectory())
        settings = read_settings(
            max_depth=64,
            max_breadth=16,
            max_nfe=1024,
            deadline_ms=2000,
            max_jobs=100_000,
            store_dir=Path(folder) / "store",
        )
        url = self.enter_context(local_service(settings))
        return url, f"127.0.0.1:{settings.grpc_port}"


if __name__ == "__main__":
    typer.run(main)
