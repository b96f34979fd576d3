"""The doctor's examinations, each a generator of findings over a `Case`, grouped by what they look at."""
