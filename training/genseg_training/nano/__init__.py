"""How nano is made: rendered scenes, the architecture, and the training stages before GRPO."""
