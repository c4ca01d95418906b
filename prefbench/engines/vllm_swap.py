"""What vLLM's own worker does for us: takes the weights of another checkpoint in place."""

from __future__ import annotations

from typing import Any


class Swap:
    """Its methods become methods of vLLM's worker (`worker_extension_cls`)."""

    model_runner: Any
    reload_weights: Any

    def load_checkpoint(self, path: str) -> None:
        """Loads the weights of a checkpoint with the same configuration and tensors."""
        self.reload_weights(weights_path=path)

    def repack_heads(self) -> None:
        """What `load_checkpoint` leaves undone."""
        from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
        from vllm.platforms import current_platform

        if current_platform.is_cpu():
            # A head tied to the embeddings has a packed copy of its own, which stays the old one.
            for module in self.model_runner.get_model().modules():
                if isinstance(module, ParallelLMHead):
                    module.quant_method.process_weights_after_loading(module)
