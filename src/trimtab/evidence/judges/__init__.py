"""Judges: functions from generated texts to scores, each with a statement of how far it can be believed."""
