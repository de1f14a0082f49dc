"""Scores of providers."""
