"""Training of GenSeg-R1: GRPO on referring examples, and the making of nano."""
