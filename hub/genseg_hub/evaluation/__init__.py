"""Metrics, scores and benchmark runs: how predictions are measured and reported."""
