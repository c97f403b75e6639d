"""The part of vLLM 0.32 that `reasoners.vllm` and TRL use, with Transformers behind it; put its folder on `sys.path`.

Requests join and leave while others are open, as in vLLM: a step answers one of them. vLLM itself has no wheel for the
machines that run the tests.
"""

import os
import random
from dataclasses import dataclass
from types import SimpleNamespace

import torch
import transformers

__version__ = "0.32.0+simulated"


@dataclass
class SamplingParams:
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop_token_ids: list[int] | None = None
    detokenize: bool = True
    n: int = 1
    min_p: float = 0.0
    logprobs: int | None = None


class ModelRegistry:
    @staticmethod
    def get_supported_archs():
        return {"Qwen3VLForConditionalGeneration"}


class LLM:
    made: list = []  # noqa: RUF012  the arguments of each

    def __init__(self, model, **options):
        if "dies" in os.environ.get("SIMULATED_VLLM", ""):
            raise RuntimeError("Engine core initialization failed")
        LLM.made.append({"model": model, **options})
        self.processor = transformers.AutoProcessor.from_pretrained(model)
        dtype = getattr(torch, options.get("dtype", "float32"))
        self.model = transformers.AutoModelForImageTextToText.from_pretrained(model, dtype=dtype).eval()
        self.longest = options["max_model_len"] or 32_768
        self.llm_engine = Engine(self)
        self.count = 0

    def enqueue(self, prompts, params, use_tqdm=True):
        (prompt,) = prompts
        if len(prompt["prompt_token_ids"]) > self.longest:
            raise ValueError(f"The prompt is longer than the maximum model length of {self.longest}")
        name, self.count = str(self.count), self.count + 1
        self.llm_engine.open[name] = (prompt, params)
        return [f"{name}-{random.getrandbits(32):08x}"]

    def generate(self, prompts, sampling_params, use_tqdm=True):
        """Answer whole, as TRL asks."""
        names = [self.enqueue([prompt], sampling_params)[0].partition("-")[0] for prompt in prompts]
        answers = {}
        while len(answers) < len(names):
            answers |= {answer.request_id: answer for answer in self.llm_engine.step()}
        return [answers[name] for name in names]

    def reset_prefix_cache(self):
        return True


class Engine:
    def __init__(self, llm):
        self.llm, self.open, self.most, self.aborted, self.dead = llm, {}, 0, [], False
        model = SimpleNamespace(load_weights=self.load_weights)
        worker = SimpleNamespace(model_runner=SimpleNamespace(model=model))
        self.model_executor = SimpleNamespace(driver_worker=worker)
        self.loaded = set()

    def load_weights(self, weights):
        for name, tensor in weights:
            self.llm.model.get_parameter(name).data.copy_(tensor)
            self.loaded.add(name)

    def abort_request(self, names):
        self.aborted += names
        for name in names:
            self.open.pop(name, None)

    @torch.no_grad()
    def step(self):
        if self.dead:
            raise RuntimeError("EngineCore encountered an issue")
        self.most = max(self.most, len(self.open))
        if not self.open:
            return []
        name = max(self.open)  # not in the order of the requests
        prompt, params = self.open.pop(name)
        processor, model = self.llm.processor, self.llm.model
        pixels = processor.image_processor(images=[prompt["multi_modal_data"]["image"]], return_tensors="pt")
        image = processor.image_token_id
        count = int(pixels["image_grid_thw"].prod()) // processor.image_processor.merge_size**2
        ids = []
        for token in prompt["prompt_token_ids"]:
            ids += [token] * (count if token == image else 1)
        ids = torch.tensor([ids])
        sampled = params.temperature > 0
        ends = params.stop_token_ids or [model.generation_config.eos_token_id]
        tokens = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == image).int(),
            **pixels,
            max_new_tokens=params.max_tokens,
            do_sample=sampled,
            temperature=params.temperature if sampled else None,
            top_k=0 if sampled else None,
            repetition_penalty=params.repetition_penalty,
            eos_token_id=ends,
        )[0, ids.shape[1] :].tolist()
        reason = "stop" if tokens[-1] in ends else "length"
        chosen = [{token: SimpleNamespace(logprob=0.0, rank=1)} for token in tokens] if params.logprobs == 0 else None
        answer = SimpleNamespace(token_ids=tokens, finish_reason=reason, logprobs=chosen)
        prompt_ids = ids[0].tolist()
        return [SimpleNamespace(request_id=name, finished=True, outputs=[answer], prompt_token_ids=prompt_ids)]
