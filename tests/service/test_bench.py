"""`eqr bench serve`: what is asked, what is counted, and how it ends."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count, islice
from pathlib import Path
from typing import Any

import pytest

from eqr_core.data.puzzles import PuzzleRow, write_puzzles
from eqr_core.errors import DataError
from service.bench.load import ANSWERED, Item, Load, Plan, Sample
from service.bench.puzzles import Band, draw, parse_mix, read_rows
from service.bench.report import plot
from service.bench.summary import summarise
from service.problems import Refusal
from service.schemas import BreadthCount, SolveAnswer, Timing

ROWS = [PuzzleRow("s", f"q{i}", f"a{i}", i) for i in range(10)]


def test_a_mix_is_read_and_drawn_by_weight() -> None:
    bands = parse_mix("0=3, 1-4=1,5-=0.5")
    assert bands == (Band("0", 0, 0, 3.0), Band("1-4", 1, 4, 1.0), Band("5-", 5, None, 0.5))
    drawn = list(islice(draw(ROWS, bands, seed=1), 4500))
    counts = Counter(one.band for one in drawn)
    assert abs(counts["0"] - 3000) < 150
    assert abs(counts["5-"] - 500) < 100
    assert {one.question for one in drawn if one.band == "1-4"} == {"q1", "q2", "q3", "q4"}
    assert drawn == list(islice(draw(ROWS, bands, seed=1), 4500))
    assert [one.question for one in islice(draw(ROWS, parse_mix(None), 0), 11)][-2:] == ["q9", "q0"]


@pytest.mark.parametrize(
    ("mix", "word"),
    [
        ("", "mix"),
        ("1-5=1,3=1", "overlap"),
        ("9-3=1", "ends"),
        ("0=0", "above 0"),
        ("a=1", "'a=1'"),
    ],
)
def test_a_mix_that_makes_no_sense_is_told(mix: str, word: str) -> None:
    with pytest.raises(DataError, match=word):
        parse_mix(mix)


def test_a_band_without_puzzles_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="20-"):
        draw(ROWS, parse_mix("0=1,20-=1"), 0)
    write_puzzles(tmp_path / "none.csv", [])
    with pytest.raises(DataError, match="no puzzles"):
        read_rows(tmp_path / "none.csv", None)


def ended(plan: Plan, samples: list[Sample]) -> Load:
    load = Load(plan, iter(()))
    load.samples = samples
    return load


def test_the_document_counts_what_it_says(tmp_path: Path) -> None:
    good = Item("0", ANSWERED, correct=True, converged=True, nfe=10, engine_seconds=0.5)
    wrong = Item("1-", ANSWERED, nfe=30, engine_seconds=0.5)
    shed, broken = Item("0", "queue_full"), Item("0", "ConnectionFailed")
    load = ended(
        Plan("s", rate=1.0, seconds=10.0, warm_up_seconds=2.0),
        [
            Sample(1.0, 1.0, 2.5, (good,)),  # meant before the measurement, answered within
            Sample(3.0, 3.5, 4.0, (good,)),
            Sample(5.0, 5.0, 8.0, (wrong,)),
            Sample(6.0, 6.0, 6.01, (shed,)),
            Sample(7.0, 7.0, 7.5, (broken,)),
            Sample(11.0, 11.0, 13.0, (good,)),  # answered after it
        ],
    )
    found = summarise(load, slo_seconds=2.0)
    assert (found["puzzles"], found["answered"], found["shed"], found["errors"]) == (5, 3, 1, 1)
    assert found["codes"] == {ANSWERED: 3, "queue_full": 1, "ConnectionFailed": 1}
    assert found["throughput"] == 0.3
    assert found["goodput"] == 0.2
    assert found["latency_ms"]["p50"] == 2000.0
    assert found["latency_ms"]["max"] == 3000.0
    assert found["shed_latency_ms"]["p99"] == pytest.approx(10.0)
    assert found["added_ms"]["max"] == 2500.0
    assert found["send_lag_ms"]["max"] == 500.0
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["mean_nfe"] == pytest.approx(50 / 3)
    assert [(one["rating"], one["answered"]) for one in found["bands"]] == [("0", 2), ("1-", 1)]
    plot(load.samples, found, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(DataError):
        plot(load.samples, found, tmp_path / "plot.nothing")


def test_an_answer_that_its_deadline_cut_is_no_goodput() -> None:
    whole = Item("0", ANSWERED)
    samples = [Sample(3.0, 3.0, 3.5, (one,)) for one in (whole, replace(whole, cut=True))]
    found = summarise(ended(Plan("s", seconds=10.0), samples), slo_seconds=1.0)
    assert (found["answered"], found["cut"]) == (2, 1)
    assert (found["throughput"], found["goodput"]) == (0.2, 0.1)


def test_nothing_is_told_as_nothing(tmp_path: Path) -> None:
    found = summarise(ended(Plan("s"), []), 1.0)
    assert found["latency_ms"] is None
    assert (found["accuracy"], found["throughput"]) == (None, 0.0)
    json.dumps(found, allow_nan=False)
    plot([], found, tmp_path / "plot.png")


class Stand(BaseHTTPRequestHandler):
    """Answers every other solve at once, refuses the others, and batches one by one."""

    protocol_version = "HTTP/1.1"
    turns: Iterator[int]
    served = 0

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert (body[0] if isinstance(body, list) else body)["cache"] is False
        full = Refusal("queue_full", "wait").document("x")
        if isinstance(body, list):
            results = [
                {"answer": answer(one["grid"])} if i % 2 else {"error": full.model_dump()}
                for i, one in enumerate(body)
            ]
            self.give(200, json.dumps({"results": results}))
        elif next(self.turns) % 2:
            self.give(429, full.model_dump_json())
        else:
            self.give(200, json.dumps(answer(body["grid"])))

    def give(self, status: int, text: str) -> None:
        Stand.served += 1
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *arguments: object) -> None:
        pass


class Listener(ThreadingHTTPServer):
    request_queue_size = 256


def answer(grid: str) -> dict[str, Any]:
    return SolveAnswer(
        id="i", task="sudoku", model="m", grid=[[1]], text=grid.replace("q", "a"), residual=0.0,
        converged=True, verified=True, finish_reason="converged", iterations=3, nfe=3, layers=3,
        breadth=BreadthCount(started=1, converged=1, lost=0), agreement=1.0, seed=0, cached=False,
        timing_ms=Timing(queue=0, solve=0, total=0),
    ).model_dump(mode="json")  # fmt: skip


@pytest.fixture
def stand() -> Iterator[str]:
    Stand.turns, Stand.served = count(), 0
    with Listener(("127.0.0.1", 0), Stand) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def bench(*flags: str, **more: Any) -> subprocess.Popen[str]:
    command = "from service.cli import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", command, "bench", "serve", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **more,
    )


@pytest.mark.parametrize(
    "flags", [["--concurrency", "2"], ["--rate", "40"], ["--endpoint", "batch", "--batch", "4"]]
)
def test_a_load_is_counted(stand: str, tmp_path: Path, flags: list[str]) -> None:
    write_puzzles(tmp_path / "p.csv", ROWS)
    where = ["--url", stand, "--data", str(tmp_path / "p.csv"), "--seconds", "1", "--json"]
    process = bench(*where, *flags, "--warm-up", "0", "--mix", "0=1,1-=1")
    out, err = process.communicate()
    assert (process.returncode, err) == (0, "")
    found = json.loads(out)
    assert found["answered"] > 0
    assert abs(found["shed"] - found["answered"]) <= max(3, found["in_flight_at_end"])
    assert (found["errors"], found["accuracy"]) == (0, 1.0)
    assert found["loop"] == ("open" if "--rate" in flags else "closed")
    assert {one["rating"] for one in found["bands"]} == {"0", "1-"}


def test_an_interrupt_shows_what_there_is(stand: str, tmp_path: Path) -> None:
    write_puzzles(tmp_path / "p.csv", ROWS)
    where = ["--url", stand, "--data", str(tmp_path / "p.csv"), "--seconds", "9999"]
    process = bench(
        *where,
        *("--warm-up", "0", "--json"),
        # A shell may have this process ignore it, which children inherit.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    while Stand.served < 500:
        assert process.poll() is None, process.communicate()
        threading.Event().wait(0.1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130, err
    found = json.loads(out)
    assert found["interrupted"]
    assert found["answered"] > 0
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        (["--endpoint", "stream"], "endpoint"),
        (["--rate", "nan"], "rate"),
        (["--depth", "0"], "depth"),
        (["--mix", "x"], "mix"),
        (["--data", "nowhere.csv"], "nowhere"),
        (["--url", "grpc://"], "address"),
        (["--api-key-file", "nowhere.key"], "nowhere"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(flags: list[str], word: str) -> None:
    out, err = (process := bench("--seconds", "1", *flags)).communicate()
    assert (process.returncode, out) == (2, ""), err
    assert err.count("\n") == 1
    assert word in err


def test_a_service_that_is_not_there_is_an_error() -> None:
    flags = ["--url", "http://127.0.0.1:9", "--seconds", "0.5", "--warm-up", "0", "--json"]
    process = bench(*flags, "--rate", "10")
    out, err = process.communicate()
    assert process.returncode == 1
    assert set(json.loads(out)["codes"]) <= {"ConnectionFailed"}
    assert "error: nothing was answered; at last: http://127.0.0.1:9" in err
