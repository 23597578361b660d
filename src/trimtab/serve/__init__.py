"""A server for other programs: steered text behind an OpenAI-compatible API, and what is known of features."""
