"""Examples: which form a source has, where they come from, how they are split, what is wrong, how they are fed."""
