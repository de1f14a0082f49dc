"""Offers of capacity, and the index that finds the cheapest."""
