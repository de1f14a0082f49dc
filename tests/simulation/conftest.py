"""What the tests of this folder share: one server of commands that meet faults."""

from collections.abc import Iterator

import pytest

from tests.support.faults import Server, compiled, in_memory


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all of them: it imports everything before it runs the first command."""
    with (
        in_memory("streams") as memory,
        Server(compiled(tmp_path_factory), memory / "streams") as found,
    ):
        yield found
