"""Referring examples on their way into FiftyOne and out again."""
