"""What has ended and is settled goes to a file, and leaves its ids and its sums behind."""
