"""Steering: edits of the residual stream, recipes of them, and generation under them."""
