"""A model of the same shape that has learnt nothing, to stand beside a trained one."""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PretrainedConfig

from prefbench.engines.plain import bare


def randomly_initialised(model_or_config: Any, seed: int) -> Any:
    """A model as its configuration's own initialisation makes it, from this seed alone.

    Args:
        model_or_config: a transformers model, whose type, device and number format are taken over
            (of an adapter's, those of its base), or a configuration.
        seed: the same gives the same weights on every device; the process's own random numbers
            stay as they are.
    """
    is_config = isinstance(model_or_config, PretrainedConfig)
    inner = None if is_config else bare(model_or_config)
    config = copy.deepcopy(model_or_config if inner is None else inner.config)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed)
        if inner is None:
            made = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
                config, dtype=torch.float32
            )
        else:
            made = type(inner)._from_config(config, dtype=torch.float32)
    if inner is not None:
        like = next(inner.parameters())
        made.to(like.device, like.dtype)
    return made.eval().requires_grad_(False)
