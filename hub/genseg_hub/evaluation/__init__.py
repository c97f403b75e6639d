"""Measure predictions and report the figures: metrics, scores and benchmark runs."""
