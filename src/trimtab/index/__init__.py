"""What each feature fires on: one pass over a corpus, stored as Parquet, and everything that is read from it."""
