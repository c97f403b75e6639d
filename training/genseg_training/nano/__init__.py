"""Make nano: rendered scenes, the architecture, and the stages before GRPO."""
