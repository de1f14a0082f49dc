"""What a list is made of: the columns of a noun, and the rows and documents of its records."""

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from compute_market.store.txn import Txn

# What a value is for eyes: `at` is an instant in unix seconds and `due` one that is to come, both
# told as so long from now; `ms` is one in milliseconds, told as it is; `long` may go on over
# several lines, as a `record`, which cannot be sorted by, may.
Kind = Literal["text", "number", "state", "at", "due", "ms", "long", "record"]

# A row is what a list prints of one record: the values of its columns, or the record's JSON form.
Row = Any
Make = Callable[["Txn", Any], Row]


class Column:
    """One column. A plain class, as importing the declarations of a list must cost little."""

    __slots__ = ("head", "kind", "name", "of", "order")

    def __init__(
        self,
        name: str,  # of the field in the JSON form
        head: str | None = None,  # what stands above it, as short as can be
        kind: Kind = "text",
        # An attribute, or one of an attribute that may be None; or how the value is found.
        of: str | Callable[["Txn", Any], Any] | None = None,
        order: tuple[str, ...] = (),  # its values as they are sorted
    ) -> None:
        self.name = name
        self.head = name.replace("_", " ").upper() if head is None else head
        self.kind: Kind = kind
        self.of = of
        self.order = order

    def key(self, value: Any) -> tuple[bool, Any]:
        """What to sort a value by: nothing is the least, and what is no number comes last."""
        if value is None:
            return False, None
        if value in self.order:
            value = self.order.index(value)
        is_number = isinstance(value, int | float)
        return True, (not is_number, value if is_number else str(value))


class Noun:
    """What a list is of. Records without `document` are their JSON form themselves."""

    __slots__ = ("age", "columns", "document", "key", "plural", "ranked", "shown", "table")

    def __init__(
        self,
        plural: str,
        key: str,  # the column of its id
        columns: Sequence[Column],
        *,
        shown: Sequence[str],  # in a pipe
        table: Sequence[str] = (),  # for eyes, by rank, where that is not the same
        document: "Callable[[Txn, Any], dict[str, Any]] | None" = None,
        age: Callable[[Any], Any] | None = None,  # of a record, where they come in another order
        ranked: bool = False,  # the first of them are the ones that a limit leaves
    ) -> None:
        self.plural = plural
        self.key = key
        self.columns = {each.name: each for each in columns}
        self.shown = tuple(shown)
        self.table = tuple(table or shown)
        self.document = document or itself
        self.age = age
        self.ranked = ranked

    def with_table(self, *names: str) -> "Noun":
        """The same with other columns for eyes."""
        return Noun(
            self.plural,
            self.key,
            tuple(self.columns.values()),
            shown=self.shown,
            table=names,
            document=self.document,
            age=self.age,
            ranked=self.ranked,
        )

    def named(self, names: Iterable[str]) -> tuple[Column, ...]:
        return tuple(self.columns[name] for name in names)

    @property
    def sortable(self) -> tuple[str, ...]:
        """The columns whose values have an order."""
        return tuple(name for name, each in self.columns.items() if each.kind != "record")


def itself(txn: "Txn", record: Any) -> Any:
    return record


def rows_of(noun: Noun, columns: Sequence[Column]) -> "Callable[[Txn, Any], Sequence[Any]]":
    """What makes the values of these columns of a record, and nothing else of it."""
    direct = _direct([each.of for each in columns if isinstance(each.of, str)])
    others = [(place, each) for place, each in enumerate(columns) if not isinstance(each.of, str)]
    if not others:
        return lambda txn, record: direct(record)
    from_document = any(each.of is None for _, each in others)

    def row(txn: "Txn", record: Any) -> Sequence[Any]:
        found = list(direct(record))
        document = noun.document(txn, record) if from_document else {}
        for place, each in others:  # From the left, so that each goes where it belongs.
            of = each.of
            value = of(txn, record) if callable(of) else document.get(each.name)
            found.insert(place, value)
        return found

    return row


def documents_of(noun: Noun, columns: Sequence[Column]) -> "Callable[[Txn, Any], dict[str, Any]]":
    """What makes the JSON form of a record with these fields alone."""
    row = rows_of(noun, columns)
    names = [each.name for each in columns]
    return lambda txn, record: dict(zip(names, row(txn, record), strict=True))


def value_of(noun: Noun, column: Column) -> "Callable[[Txn, Any], Any]":
    """What makes the value of one column of a record."""
    row = rows_of(noun, (column,))
    return lambda txn, record: row(txn, record)[0]


def _direct(paths: Sequence[str]) -> Callable[[Any], Sequence[Any]]:
    """What reads attributes of a record, all of them in one call where none is lacking."""
    if not paths:
        return lambda record: ()
    get = _all_of(paths)
    own = _all_of([path for path in paths if "." not in path])
    # Attributes of what may be lacking: where they stand, of what, and how they are read.
    others = [
        (place, path.partition(".")[0], attrgetter(path))
        for place, path in enumerate(paths)
        if "." in path
    ]
    if not others:
        return get
    roots = _all_of(sorted({of for _, of, _ in others}))

    def values(record: Any) -> Sequence[Any]:
        if None not in roots(record):
            return get(record)
        found = list(own(record))
        for place, of, get_other in others:
            lacks = getattr(record, of) is None
            found.insert(place, None if lacks else get_other(record))
        return found

    return values


def _all_of(paths: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    if len(paths) > 1:
        return attrgetter(*paths)
    if not paths:
        return lambda record: ()
    get = attrgetter(paths[0])
    return lambda record: (get(record),)
