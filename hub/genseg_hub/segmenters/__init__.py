"""The segmenter: a frozen SAM that turns instance prompts into masks."""
