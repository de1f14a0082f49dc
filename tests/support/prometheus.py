"""A real Prometheus that scrapes a market three times a second, and what it says of alerts."""

import json
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from socket import socket
from typing import Any
from urllib.parse import urlencode

INTERVAL = "300ms"
# In this time every scrape, evaluation and change must have come to something.
PATIENCE_S = 30


def free_port() -> int:
    """A port that nobody listens at now."""
    with closing(socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Prometheus:
    def __init__(self, port: int) -> None:
        self._port = port

    def ask(self, path: str, **query: str) -> Any:
        """The body of an answer, decoded where it is that of its interface."""
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            connection.request("GET", f"{path}?{urlencode(query)}")
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return json.loads(body)["data"] if path.startswith("/api") else body

    def firing(self) -> set[str]:
        """The alerts that fire now."""
        alerts = self.ask("/api/v1/alerts")["alerts"]
        return {each["labels"]["alertname"] for each in alerts if each["state"] == "firing"}

    def fired(self) -> set[str]:
        """The alerts that have fired at any time."""
        query = 'count by (alertname) (max_over_time(ALERTS{alertstate="firing"}[1h]))'
        found = self.ask("/api/v1/query", query=query)["result"]
        return {each["metric"]["alertname"] for each in found}

    def annotations(self) -> dict[str, dict[str, str]]:
        """What each alert says, by its name."""
        groups = self.ask("/api/v1/rules", type="alert")["groups"]
        return {rule["name"]: rule["annotations"] for group in groups for rule in group["rules"]}

    def wait_until_fired(self, *names: str) -> None:
        """Until each of them has fired at some time."""
        self._wait(lambda: {*names} - self.fired())

    def wait_until_silent(self, *names: str) -> None:
        """Until none of them fires; without names, nothing at all."""
        self._wait(lambda: self.firing() & {*names} if names else self.firing())

    def _wait(self, left: Callable[[], set[str]]) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while found := left():
            assert time.monotonic() < give_up, f"left: {found}; fired: {sorted(self.fired())}"
            time.sleep(0.05)


@contextmanager
def prometheus(directory: Path, rules: str, target: int) -> Iterator[Prometheus]:
    """It with these rules, and the server at a port as the market that it scrapes."""
    directory.mkdir()
    (directory / "rules.yml").write_text(rules)
    (directory / "prometheus.yml").write_text(
        f"global:\n  scrape_interval: {INTERVAL}\n  scrape_timeout: {INTERVAL}\n"
        "  evaluation_interval: 100ms\n"
        "rule_files: [rules.yml]\n"
        "scrape_configs:\n  - job_name: compute-market\n"
        f"    static_configs: [{{targets: ['127.0.0.1:{target}']}}]\n"
    )
    port = free_port()
    with (directory / "log").open("wb") as log:
        started = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={directory / 'prometheus.yml'}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        )
    try:
        _wait_for(port, started, directory / "log")
        yield Prometheus(port)
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait()


def _wait_for(port: int, started: "subprocess.Popen[bytes]", log: Path) -> None:
    give_up = time.monotonic() + PATIENCE_S
    while True:
        assert started.poll() is None, log.read_text()
        try:
            Prometheus(port).ask("/-/ready")
            return
        except (OSError, AssertionError):
            assert time.monotonic() < give_up, log.read_text()
            time.sleep(0.02)
