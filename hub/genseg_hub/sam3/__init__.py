"""Peers of reason-then-segment that use SAM 3.

One takes words alone, the other is an agent with a reasoner.
"""
