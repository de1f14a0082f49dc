"""What became of the items of an atomic run that was rolled back."""

from tb_cli.frame.bulk import Outcome


def undone(outcome: Outcome) -> Outcome:
    """The outcome of an item that fails is what it was, and that of any other is that it is not."""
    if outcome.error is not None:
        return outcome
    id_field = next(iter(outcome.document))  # The first field of every record.
    return Outcome(
        outcome.name,
        f"{outcome.name}: not changed, another item failed",
        {id_field: outcome.document[id_field], "changed": False},
        is_undone=True,
    )
