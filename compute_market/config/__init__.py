"""Every setting, its default, and how a file and variables change it."""
