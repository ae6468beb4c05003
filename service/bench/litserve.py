"""`python -m service.bench.litserve RIVAL PORT`: static batches behind LitServe."""

from __future__ import annotations

import json
import sys

import litserve

from service.bench.rivals import BATCH_WAIT_SECONDS, Item, Rival


class StaticApi(litserve.LitAPI):  # type: ignore[misc]
    """Batches of puzzles, solved together."""

    def __init__(self, rival: Rival) -> None:
        super().__init__(max_batch_size=rival.batch, batch_timeout=BATCH_WAIT_SECONDS)
        self._rival = rival

    def setup(self, device: str) -> None:
        self._solve = self._rival.solver()

    # LitServe reads the annotations of these two: without any it takes and gives JSON.
    def decode_request(self, request):  # type: ignore[no-untyped-def]
        return request["grid"], request["seed"]

    def batch(self, inputs: list[Item]) -> list[Item]:
        return inputs

    def predict(self, x: list[Item]) -> list[str]:
        return self._solve(x)

    def unbatch(self, output: list[str]) -> list[str]:
        return output

    def encode_response(self, output):  # type: ignore[no-untyped-def]
        return {"text": output}


def main(rival: str, port: str) -> None:
    """Serve until killed."""
    api = StaticApi(Rival(**json.loads(rival)))
    server = litserve.LitServer(api, accelerator="cpu", timeout=False)
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
