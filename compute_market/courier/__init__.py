"""Bundles that are stored here and forwarded to other markets (chapter 5)."""
