"""Recipes in other projects' file formats: one module a format, and `formats` that knows them all."""
