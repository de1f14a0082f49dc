"""Jobs, and what happens to them: submit, prove, cancel, expire."""
