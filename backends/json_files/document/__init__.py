"""A document's bytes: text, difference, writing in place, cache, archive."""
