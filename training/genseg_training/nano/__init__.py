"""How nano is made: rendered scenes, the architecture, and its training stages before GRPO."""
