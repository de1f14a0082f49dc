"""Tables on disk: what they hold, transactions over them, one writer at a time."""
