"""Proof: did the steered text carry the feature, more than controls, and at what cost?"""
