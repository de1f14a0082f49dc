"""Parameters that proposals change while the market runs, and the values in force."""
