"""A service with API keys and ceilings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from service.security import new_key
from tests.checkpoints import save_random, save_random_maze
from tests.e2e.conftest import HTTP, Server, eventually, serving
from tests.e2e.test_lifecycle import processes
from tests.e2e.test_operations import eqr

FOUR = "1...4...2..3...."
ALICE, ALICE_LINE = new_key("alice")
BOB, BOB_LINE = new_key("bob")
SLOW, SLOW_LINE = new_key("slow")
POOR, POOR_LINE = new_key("poor")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("guarded")
    save_random(place / "random")
    save_random_maze(place / "maze")
    limited = [
        {**json.loads(SLOW_LINE), "rate_per_minute": 2},
        {**json.loads(POOR_LINE), "nfe_per_day": 3},
    ]
    (place / "keys").write_text("\n".join([ALICE_LINE, BOB_LINE, *map(json.dumps, limited)]))
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    flags = [
        *("--models", f"{folder / 'random'},{folder / 'maze'}"),
        *("--api-keys-file", str(folder / "keys")),
        *("--max-depth", "512", "--cors-origins", "https://here.example"),
    ]
    with serving(folder, *flags) as one:
        yield one


def ask(server: Server, path: str, sent: Any = None, key: str = ALICE) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    if sent is None:
        return HTTP.get(f"{server.url}{path}", headers=headers)
    return HTTP.post(f"{server.url}{path}", json=sent, headers=headers)


def code(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["code"]


def body(seed: int = 0, depth: int = 3, breadth: int = 1) -> dict[str, Any]:
    budget = {"depth": depth, "breadth": breadth, "stop": "exhausted"}
    return {"grid": FOUR, "seed": seed, "budget": budget, "cache": False}


def test_only_who_has_a_key_may_in(server: Server) -> None:
    for path in ("/models", "/jobs/x"):
        refused = HTTP.get(f"{server.url}{path}")
        assert code(refused) == (401, "unauthenticated")
        assert refused.headers["www-authenticate"].startswith("Bearer")
    for path in ("/solve", "/solve/batch", "/solve/stream", "/jobs"):
        assert code(HTTP.post(f"{server.url}{path}", json=body())) == (401, "unauthenticated")
        assert code(ask(server, path, body(), key="wrong")) == (401, "unauthenticated")
    open_to_all = ("/health/live", "/health/ready", "/metrics", "/docs", "/openapi.json")
    for path in (*open_to_all, "/", "/playground/app.js"):
        assert HTTP.get(f"{server.url}{path}").status_code == 200
    assert ask(server, "/solve", body()).status_code == 200
    header = {"X-API-Key": BOB}
    assert HTTP.post(f"{server.url}/solve", json=body(), headers=header).status_code == 200


def test_the_command_line_takes_its_key_from_a_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{ALICE}\n")
    asked = ["solve", FOUR, "--server", server.url]
    assert "unauthenticated" in eqr(*asked).stderr
    done = eqr(*asked, "--api-key-file", str(tmp_path / "key"))
    assert done.returncode == 0, done.stderr
    needless = eqr("solve", FOUR, "--api-key-file", str(tmp_path / "key"))
    assert needless.returncode == 2
    assert "--server" in needless.stderr


def test_the_playground_asks_for_the_key(server: Server, page: Page) -> None:
    page.goto(server.url)
    expect(page.locator("#status")).to_contain_text("There is no API key, or it is not known")
    expect(page.locator("#key")).to_be_focused()
    page.keyboard.type(ALICE)
    page.keyboard.press("Enter")
    expect(page.locator("#sudoku-board")).to_be_visible()
    expect(page.locator("#key-form")).to_be_hidden()

    page.get_by_role("radio", name="Maze").check()
    page.locator("#rows").fill("9")
    page.locator("#columns").fill("12")
    page.locator("#new-maze").click()
    before = page.locator("#text").input_value().split("\n")
    assert [len(row) for row in before] == [12] * 9
    board = page.locator("#maze-board")
    box = board.bounding_box()
    assert box is not None
    cell = box["width"] / 12
    page.mouse.move(box["x"] + cell / 2, box["y"] + cell / 2)
    page.mouse.down()
    page.mouse.move(box["x"] + 4.5 * cell, box["y"] + cell / 2)
    page.mouse.up()
    board.focus()
    for key in ("ArrowRight", " ", "ArrowRight", "s"):
        page.keyboard.press(key)
    after = page.locator("#text").input_value().split("\n")
    assert after[0] == " " * 6 + "S" + "#" * 5
    assert after[1:] == [row.replace("S", " ") for row in before[1:]]
    expect(page.locator("#maze-place")).to_have_text("Row 1, column 7: start")

    page.locator("#depth").fill("513")
    page.keyboard.press("Enter")
    expect(page.locator("#status h2")).to_have_text("The budget is outside its limits")
    expect(page.locator("#depth")).to_have_attribute("aria-invalid", "true")
    page.locator("#depth").fill("3")
    page.locator("#solve").click()
    expect(page.locator("#status h2")).to_have_text("Not solved")
    expect(page.locator("#numbers")).to_contain_text("16 started, 0 converged")
    expect(page.locator("#depth")).to_have_attribute("aria-invalid", "false")


def test_ceilings_rates_and_quotas(server: Server) -> None:
    above = ask(server, "/solve", body(depth=513))
    assert code(above) == (422, "invalid_budget")
    assert "513" in above.json()["detail"]
    assert "512" in above.json()["detail"]
    assert code(ask(server, "/jobs", body(depth=513))) == (422, "invalid_budget")
    (end,) = ask(server, "/solve/batch", [body(depth=513)]).json()["results"]
    assert end["error"]["code"] == "invalid_budget"

    assert [ask(server, "/solve", body(), key=SLOW).status_code for _ in range(2)] == [200, 200]
    fast = ask(server, "/solve", body(), key=SLOW)
    assert code(fast) == (429, "rate_limited")
    assert 0 < int(fast.headers["retry-after"]) <= 30

    assert ask(server, "/solve", body(depth=3), key=POOR).json()["nfe"] == 3
    spent = ask(server, "/solve", body(), key=POOR)
    assert code(spent) == (429, "quota_exceeded")
    assert int(spent.headers["retry-after"]) > 0


def test_other_origins_only_where_named(server: Server) -> None:
    def allowed(origin: str) -> str | None:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST",
                   "Access-Control-Request-Headers": "authorization,content-type"}  # fmt: skip
        answer = HTTP.options(f"{server.url}/solve", headers=headers)
        found: str | None = answer.headers.get("access-control-allow-origin")
        return found

    assert allowed("https://here.example") == "https://here.example"
    assert allowed("https://there.example") is None


def test_a_job_is_its_owners_alone(server: Server) -> None:
    name = ask(server, "/jobs", body()).json()["id"]
    assert code(ask(server, f"/jobs/{name}", key=BOB)) == (404, "unknown_job")
    assert ask(server, f"/jobs/{name}").json()["id"] == name


def test_the_log_is_json_and_tells_no_key(server: Server) -> None:
    request_id = "find-this-one"
    headers = {"X-Request-Id": request_id, "X-API-Key": ALICE}
    assert HTTP.get(f"{server.url}/models", headers=headers).status_code == 200
    # The line is written when the answer has gone out.
    eventually(lambda: any(request_id in one.read_text() for one in _logs(server)))
    texts = [one.read_text() for one in _logs(server)]
    lines = [json.loads(line) for text in texts for line in text.splitlines() if "{" in line]
    (told,) = [line for line in lines if line.get("request") == request_id]
    assert (told["method"], told["path"], told["status"]) == ("GET", "/models", 200)
    assert told["owner"] == "alice"
    for key in (ALICE, BOB, SLOW, POOR):
        assert not any(key in text for text in texts)
        assert key not in server.log.read_text()


def _logs(server: Server) -> list[Path]:
    """Log files of the server's ingress replica."""
    (ingress,) = processes(server.process.pid, "ray::ServeReplica:eqr:Ingress")
    open_files = {one.readlink() for one in Path(f"/proc/{ingress}/fd").iterdir()}
    return [one for one in open_files if one.name.startswith("replica_")]
