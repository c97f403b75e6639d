"""Ask one sample at a time, correct the answer, and keep it as ground truth."""
