"""Segment a view: a request, an engine that answers, and the run that writes.

Importing this package does not import FiftyOne: the workers of a Ray cluster import it, too.
"""
