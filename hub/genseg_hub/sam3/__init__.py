"""Segment with SAM 3 by words, or with an agent whose reasoner asks SAM 3."""
