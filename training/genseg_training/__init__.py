"""Training of GenSeg-R1: GRPO on referring examples, and how nano is made."""
