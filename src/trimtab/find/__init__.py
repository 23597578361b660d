"""From a contrast to a recipe: contrast sets, positions, features, clusters, weights."""
