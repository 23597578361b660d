"""Small models for tests: trimtab's own, and those of code that uses trimtab."""
