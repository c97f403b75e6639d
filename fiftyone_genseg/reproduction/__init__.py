"""Stages of `genseg reproduce`, from the official archives to a table of figures."""
