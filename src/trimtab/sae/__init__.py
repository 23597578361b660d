"""Sparse autoencoders as plain values: open one, encode, decode, take decoder rows."""
