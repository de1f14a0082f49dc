"""How a page is made of a document: the templates, and the files that go with them.

All of it is read once; a page asks the disk for nothing.
"""

from pathlib import Path
from typing import Any, Final
from zlib import crc32

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from msgspec import Struct

from compute_market import __version__
from tb_cli.network.pages import charts, words

_TEMPLATES: Final = Path(__file__).parents[1] / "templates"
_KINDS: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class Static(Struct, frozen=True, gc=False):
    """A file that a page refers to."""

    content: bytes
    kind: str  # its media type


class Renderer:
    """The templates, each compiled once."""

    def __init__(self) -> None:
        self.static = {
            path.name: Static(path.read_bytes(), _KINDS[path.suffix])
            for path in sorted((_TEMPLATES / "static").iterdir())
        }
        self._environment = Environment(
            loader=FileSystemLoader(_TEMPLATES),
            autoescape=True,
            undefined=StrictUndefined,
            finalize=words.plain,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name in (
            "number",
            "share",
            "lasting",
            "instant",
            "zone",
            "name",
            "link",
            "label",
            "pairs",
            "sentence",
        ):
            self._environment.filters[name] = getattr(words, name)
        self._environment.globals |= {
            "charts": charts,
            "static": self.address_of,
            "release": __version__,
        }

    def page(self, name: str, document: dict[str, Any]) -> bytes:
        """A page as HTML; `now_ms` of the document is when it is true."""
        now_ms = document["now_ms"]
        ago = {"ago": lambda at_ms: words.relative(at_ms, now_ms)}
        text: str = self._environment.get_template(f"{name}.html").render(document | ago)
        return text.encode()

    def address_of(self, name: str) -> str:
        """Where a static file is; another when its content is another, so that it may be kept."""
        return f"/static/{name}?{crc32(self.static[name].content):08x}"
