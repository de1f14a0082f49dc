"""Who may submit how much."""
