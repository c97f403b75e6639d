"""Publish checkpoints on the Hugging Face Hub, with their model cards."""
