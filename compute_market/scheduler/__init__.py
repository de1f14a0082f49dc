"""Which offer a job goes to, and which job takes the next slot."""
