"""Money: accounts, escrow, receipts, and who is paid when."""
