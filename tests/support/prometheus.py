"""A real Prometheus that scrapes a market four times a second, and what it says of alerts."""

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from socket import socket
from typing import Any

INTERVAL = "250ms"
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
        self.fired: dict[str, dict[str, str]] = {}  # labels of the alerts that were seen firing

    def ask(self, path: str) -> Any:
        with closing(HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return json.loads(body)["data"] if path.startswith("/api") else body

    def firing(self) -> dict[str, dict[str, str]]:
        """The alerts that fire now, with their annotations."""
        found = {}
        for alert in self.ask("/api/v1/alerts")["alerts"]:
            if alert["state"] == "firing":
                name = alert["labels"]["alertname"]
                found[name] = self.fired[name] = alert["annotations"]
        return found

    def wait_until_fired(self, *names: str) -> None:
        """Until each of them has been seen firing at some time."""
        self._wait(lambda: {*names} - (self.firing() | self.fired).keys())

    def wait_until_silent(self, *names: str) -> None:
        """Until none of them fires; without names, nothing at all."""
        self._wait(lambda: {name for name in self.firing() if not names or name in names})

    def _wait(self, left: Any) -> None:
        give_up = time.monotonic() + PATIENCE_S
        while found := left():
            assert time.monotonic() < give_up, f"left: {found}; fired: {sorted(self.fired)}"
            time.sleep(0.02)


@contextmanager
def prometheus(directory: Path, rules: str, target: int) -> Iterator[Prometheus]:
    """It with these rules, and the server at a port as the market that it scrapes."""
    directory.mkdir()
    (directory / "rules.yml").write_text(rules)
    (directory / "prometheus.yml").write_text(
        f"global:\n  scrape_interval: {INTERVAL}\n  scrape_timeout: {INTERVAL}\n"
        f"  evaluation_interval: {INTERVAL}\n"
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
