"""Sealed bids: jobs that are committed to first and told later (chapter 4.2)."""
