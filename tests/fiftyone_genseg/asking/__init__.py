"""Tests of asking, correcting and keeping."""
