"""The pages for a person: what they show, their charts and words, and where they are."""
