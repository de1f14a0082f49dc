"""The operator's face of the market: parse, one library call, render."""
