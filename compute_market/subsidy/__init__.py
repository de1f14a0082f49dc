"""What providers earn beside the price: epochs, the multiplier, payouts (chapter 3.6)."""
