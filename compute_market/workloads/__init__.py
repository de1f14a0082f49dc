"""What is run over slices, and where."""
