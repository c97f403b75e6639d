"""Segmenters: frozen promptable models that turn instance prompts into masks."""
