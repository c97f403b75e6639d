"""Referring examples as FiftyOne samples, and samples as referring examples."""
