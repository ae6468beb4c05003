"""The page at `/`, in a real browser against the real service."""

from __future__ import annotations

import json
import re

import pytest
from playwright.sync_api import Page, expect

from eqr_core.tasks import parse_grid
from eqr_core.tasks.maze import Maze
from service.playground import FOLDER
from tests.e2e.conftest import HTTP, Server, eventually, samples

NINE = "53..7....6..195....98....6.8...6...34..8.3..17...2...6.6....28....419..5....8..79"
SOLVED = "534678912672195348198342567859761423426853791713924856961537284287419635345286179"


def test_the_page_and_its_files_may_load_nothing_else(server_url: str) -> None:
    page = HTTP.get(server_url)
    assert page.headers["content-type"].startswith("text/html")
    files = [f"{server_url}/playground/{one.name}" for one in FOLDER.iterdir()]
    assert len(files) > 5
    for answer in (page, *map(HTTP.get, files)):
        assert answer.status_code == 200
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"\son\w+=|style=|<style|<script>|//", page.text)
    for path in ("nothing.js", "../rest.py", "%2e%2e/rest.py", ""):
        missing = HTTP.get(f"{server_url}/playground/{path}")
        assert (missing.status_code, missing.json()["code"]) == (404, "not_found")


def test_a_sudoku_is_typed_and_solved_with_keys_alone(server_url: str, page: Page) -> None:
    faults: list[str] = []
    urls: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("request", lambda request: urls.append(request.url))
    page.goto(server_url)
    expect(page.locator("#sudoku-board")).to_be_visible()
    tab_to(page, "#clear")
    page.keyboard.press("Enter")
    tab_to(page, "#sudoku-board [role=gridcell]")
    for start in range(0, 81, 9):
        for character in NINE[start : start + 9]:
            if character != ".":
                page.keyboard.press(character)
            page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
    assert text(page) == NINE.replace(".", "")
    page.keyboard.press("Enter")
    expect(page.locator("#status h2")).to_have_text("Solved")
    expect(page.locator("#status")).to_contain_text("✓ verified")
    assert text(page) == SOLVED
    assert page.get_by_label("Row 1, column 1: 5, given").count() == 1
    assert page.get_by_label("Row 1, column 3: 4, answer").count() == 1
    assert page.locator("#plot polyline.chosen").count() == 1
    page.keyboard.press("Backspace")
    assert text(page) == NINE[1:].replace(".", "")
    assert faults == []
    assert all(url.startswith(server_url) for url in urls), urls


def test_a_bad_grid_is_told_and_marked(server_url: str, page: Page) -> None:
    page.goto(server_url)
    page.locator("summary").click()
    page.locator("#text").fill("55" + "." * 79)
    page.locator("#solve").click()
    expect(page.locator("#status h2")).to_have_text("The grid cannot be solved")
    expect(page.locator("#status li")).to_contain_text(["row 1: 5 stands more than once", "box 1"])
    marked = page.locator("[role=gridcell][aria-invalid]")
    assert [one.get_attribute("aria-label") for one in marked.all()] == [
        "Row 1, column 1: 5, given",
        "Row 1, column 2: 5, given",
    ]
    marked.nth(1).click()
    page.keyboard.press("3")
    expect(marked).to_have_count(0)

    page.locator("#text").fill("5")
    page.locator("#text").blur()
    expect(page.locator("#text-note")).to_contain_text("1 cells; a Sudoku has one of 16, 36, 81")
    assert text(page) == "53"


def test_cancel_ends_the_solve_in_the_service(server_url: str, page: Page) -> None:
    page.goto(server_url)
    expect(page.locator("#actions")).to_be_visible()
    page.locator("#depth").fill("4096")
    page.locator("#breadth").fill("1024")
    page.locator("#stop").select_option("exhausted")
    page.locator("#solve").click()
    expect(page.locator("#plot polyline.chosen")).to_have_count(1)
    assert samples(server_url)["eqr_slots_busy"] > 0
    page.locator("#cancel").click()
    expect(page.locator("#status")).to_have_text("Cancelled.")
    expect(page.locator("#cancel")).to_be_disabled()
    eventually(lambda: samples(server_url)["eqr_slots_busy"] == 0)


def test_without_a_maze_model_it_says_so(server: Server, page: Page) -> None:
    page.goto(server.url)
    expect(page.locator("#actions")).to_be_visible()
    page.get_by_role("radio", name="Maze").check()
    expect(page.locator("#unserved")).to_contain_text("No maze model is served here")
    expect(page.locator("#actions")).to_be_hidden()


@pytest.mark.parametrize(("rows", "columns"), [(9, 9), (10, 61), (21, 15)])
def test_its_mazes_are_perfect(server_url: str, page: Page, rows: int, columns: int) -> None:
    page.goto(server_url)
    module = json.dumps(f"{server_url}/playground/generate.js")
    sides = f"{rows}, {columns}"
    maze: list[str] = page.evaluate(f"import({module}).then((it) => it.randomMaze({sides}))")
    task, grid = parse_grid(maze)
    assert task == Maze(rows, columns)
    inside = {(r, c) for r, row in enumerate(grid) for c, cell in enumerate(row) if cell != "#"}
    ways = sum(((r + 1, c) in inside) + ((r, c + 1) in inside) for r, c in inside)
    assert len(inside) == 2 * ((rows - 1) // 2) * ((columns - 1) // 2) - 1
    assert ways == len(inside) - 1


def tab_to(page: Page, selector: str) -> None:
    """Press Tab until what has the focus is one of `selector`; a second round finds no more."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate(f"document.activeElement.matches({json.dumps(selector)})"):
            return
    pytest.fail(f"Tab does not reach {selector}")


def text(page: Page) -> str:
    """The digits on the board."""
    return "".join(page.locator("#sudoku-board [role=gridcell]").all_text_contents())
