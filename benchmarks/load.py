"""Load for `serve.py`: requests by `wrk`, or by a smaller generator, on a core of its own."""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

LOAD_CORE = {max(os.sched_getaffinity(0))}


class Load(NamedTuple):
    """One kind of request: bodies are used one after another, and none twice where `fresh`."""

    name: str
    path: str
    bodies: Sequence[str] = ()  # a GET without
    token: str = ""
    connections: int = 16


class Rate(NamedTuple):
    requests: int
    per_second: float
    p50_ms: float
    p99_ms: float


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def rate_of(directory: Path, url: str, load: Load, seconds: int) -> Rate:
    """Ask for so long, from the other core."""
    if shutil.which("wrk") is None:
        asked = {"url": url, "seconds": seconds, **load._asdict()}
        file = directory / "load.json"
        file.write_text(json.dumps(asked))
        words = [sys.executable, __file__, str(file)]
        return Rate(*json.loads(on_its_core(words)))
    script = directory / "load.lua"
    script.write_text(lua(load))
    words = ["wrk", "-t1", f"-c{load.connections}", f"-d{seconds}s", "--latency"]
    text = on_its_core([*words, "-s", str(script), url + load.path])
    if problem := re.search(r"Non-2xx.*|Socket errors.*", text):
        raise SystemExit(f"{load.name}: {problem[0]}")
    requests, rate = re.search(r"(\d+) requests in", text), re.search(r"sec: +([\d.]+)", text)
    found = {share: in_ms(time) for share, time in re.findall(r"(50|99)% +([\d.]+\w+)", text)}
    if requests is None or rate is None or len(found) < 2:
        raise SystemExit(f"{load.name}: wrk says {text}")
    return Rate(int(requests[1]), float(rate[1]), found["50"], found["99"])


def on_its_core(words: Sequence[str]) -> str:
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    os.sched_setaffinity(process.pid, LOAD_CORE)
    text, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{words[0]} ended with code {process.returncode}")
    return text


def in_ms(text: str) -> float:
    found = re.fullmatch(r"([\d.]+)(\w+)", text)
    assert found is not None, f"{text!a} is no time"
    number, unit = found.groups()
    return float(number) * {"us": 0.001, "ms": 1, "s": 1000}[unit]


def lua(load: Load) -> str:
    """What has wrk send each body once, and then go on with the last."""
    if not load.bodies:
        return ""
    lines = ",\n".join(f"[==[{body}]==]" for body in load.bodies)
    return f"""
local bodies, sent = {{{lines}}}, 0
wrk.headers["Authorization"] = "Bearer {load.token}"
request = function()
    if sent < #bodies then sent = sent + 1 end
    return wrk.format("POST", nil, nil, bodies[sent])
end
"""


def generate(file: Path) -> None:
    """The smaller generator: prints what `Rate` has."""
    asked = json.loads(file.read_text())
    times = asyncio.run(asked_for(**asked))
    times.sort()
    p50, p99 = (1000 * times[len(times) * share // 100] for share in (50, 99))
    print(json.dumps((len(times), len(times) / asked["seconds"], p50, p99)))


async def asked_for(
    url: str,
    seconds: float,
    path: str,
    bodies: list[str],
    token: str,
    connections: int,
    name: str,
) -> list[float]:
    """How long each answer took."""
    times: list[float] = []
    ends = time.monotonic() + seconds
    host, port = address_of(url)
    left = iter(bodies)

    def request() -> bytes:
        body = next(left, bodies[-1]).encode() if bodies else b""
        head = f"{'POST' if bodies else 'GET'} {path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
        head += f"Authorization: Bearer {token}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def ask() -> None:
        reader, writer = await asyncio.open_connection(host, port)
        while (began := time.monotonic()) < ends:
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"{name}: {head[:40]!r}")
            length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
            assert length is not None
            await reader.readexactly(int(length[1]))
            times.append(time.monotonic() - began)
        writer.close()

    await asyncio.gather(*(ask() for _ in range(connections)))
    return times


if __name__ == "__main__":
    generate(Path(sys.argv[1]))
