"""Lists: what is listed, which columns, in which order, and how it is told."""
