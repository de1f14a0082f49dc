"""Scenarios of a market that does not exist yet, played through the real library."""
