"""What ended long ago, and where it goes."""
