"""The shipped weights: package data, found by name through a3gan.checkpoint."""
