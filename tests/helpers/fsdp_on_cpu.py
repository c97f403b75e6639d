"""Run genseg-train with FSDP on CPU processes, on which accelerate would leave FSDP out and train whole copies."""

import sys

import torch.distributed
from accelerate.state import PartialState
from accelerate.utils import DistributedType
from genseg_training import cli

torch.distributed.init_process_group("gloo")
PartialState._prepare_backend = lambda *args, **kwargs: ("gloo", DistributedType.MULTI_GPU)
cli.main(sys.argv[1:])
torch.distributed.destroy_process_group()
