"""Language models: where their residual stream is, reading it and editing it."""
