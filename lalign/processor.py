"""The update as a processor for the `generate` of stock transformers models (design section 2)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.generation.logits_process import LogitsProcessor

from lalign.method.linear_alignment import Alignment
from lalign.method.recipe import Recipe


class AlignmentLogitsProcessor(LogitsProcessor):
    r"""
    [`LogitsProcessor`] for Linear Alignment ([Gao et al., 2024](https://arxiv.org/abs/2401.11458)). `generate` runs the
    *principled* prompts, those that contain the principle; the processor runs the *base* prompts, the same
    conversations without it, followed by the tokens generated so far, and moves the scores of `generate` by the
    trust-region step between the two. Greedy search gives the tokens of [`Aligner.generate`].

    A processor holds the key/value cache of one run: make a new one for every call of `generate`. It works with greedy
    search and sampling, several prompts at a time and `num_return_sequences`, but not with beam search, assisted
    generation or anything else that reorders or takes back tokens. Processors that `generate` puts before this one
    (`repetition_penalty`, `bad_words_ids`...) change the principled scores before the update; temperature, top-k,
    top-p and min-p come after it.

    Args:
        model (`PreTrainedModel`):
            The decoder-only model whose `generate` is called.
        base_input_ids (`torch.LongTensor` of shape `(batch_size, base_sequence_length)`):
            Token ids of the base prompts, one for each principled prompt, padded on the left where their lengths
            differ. Another principle's prompts in their place make a contrast.
        alignment ([`Recipe`], *optional*, defaults to `Alignment()`):
            The method and its settings.
        base_attention_mask (`torch.LongTensor` of shape `(batch_size, base_sequence_length)`, *optional*):
            1 for tokens of a prompt, 0 for padding. Without it nothing is padding.
        max_new_tokens (`int`, *optional*):
            As given to `generate`; needed where `alignment` has a `kl_total`, which is spent over so many tokens.

    Raises:
        `ValueError`: where the shapes do not fit or the padding is not on the left; and while generating, as soon as
            a row is not the row of the step before with one more token (a second call of `generate`, beam search).

    Examples:

    ```python
    >>> from transformers import AutoModelForCausalLM, AutoTokenizer
    >>> from lalign import Alignment, AlignmentLogitsProcessor

    >>> name = "HuggingFaceTB/SmolLM2-135M-Instruct"
    >>> tokenizer = AutoTokenizer.from_pretrained(name)
    >>> model = AutoModelForCausalLM.from_pretrained(name)

    >>> def inputs(*conversation):
    ...     return tokenizer.apply_chat_template(
    ...         conversation, add_generation_prompt=True, return_tensors="pt", return_dict=True
    ...     )

    >>> question = {"role": "user", "content": "How are rainbows made?"}
    >>> base = inputs({"role": "system", "content": "You are an assistant."}, question)
    >>> principled = inputs({"role": "system", "content": "You are an assistant.\n\nAnswer as a pirate."}, question)
    >>> aligned = AlignmentLogitsProcessor(model, base["input_ids"], alignment=Alignment(ratio=2.0))
    >>> output = model.generate(**principled, logits_processor=[aligned], do_sample=False, max_new_tokens=64)
    >>> print(tokenizer.decode(output[0, principled["input_ids"].shape[1] :], skip_special_tokens=True))
    ```
    """

    supports_continuous_batching = False

    def __init__(
        self,
        model: Any,
        base_input_ids: Tensor,
        alignment: Recipe | None = None,
        base_attention_mask: Tensor | None = None,
        max_new_tokens: int | None = None,
    ) -> None:
        mask = torch.ones_like(base_input_ids) if base_attention_mask is None else base_attention_mask.long()
        if base_input_ids.ndim != 2 or mask.shape != base_input_ids.shape:
            shapes = f"{tuple(base_input_ids.shape)} and {tuple(mask.shape)}"
            raise ValueError(f"base_input_ids and base_attention_mask must have one shape (rows, tokens), not {shapes}")
        if not bool(mask[:, -1:].all()):
            raise ValueError("base_input_ids must be padded on the left: base_attention_mask ends in 0")
        self.model = model
        self.alignment = alignment or Alignment()
        if self.alignment.kl_total is not None and max_new_tokens is None:
            raise ValueError("an alignment with kl_total needs max_new_tokens")
        self._most = max_new_tokens
        self._next_ids = base_input_ids
        self._mask = mask
        self._cache = DynamicCache(config=model.config)
        self._seen: Tensor | None = None
        self._state: Tensor | None = None
        accepted = inspect.signature(model.forward).parameters
        self._takes_position_ids = "position_ids" in accepted
        self._keep_last = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The aligned scores, -inf outside the support.

        Args:
            input_ids (`torch.LongTensor` of shape `(batch_size, sequence_length)`):
                Principled prompts and the tokens generated so far.
            scores (`torch.FloatTensor` of shape `(batch_size, config.vocab_size)`):
                Logits of the principled twin.

        Return:
            `torch.FloatTensor` of shape `(batch_size, config.vocab_size)`.
        """
        recipe = self.alignment
        principled = scores.float()
        self._follow(input_ids)
        base = principled if recipe.needs((1.0,)) == "principled" else self._base_logits().to(principled)
        if self._state is None and self._most is not None:
            self._state = recipe.opening([self._most] * len(principled), principled.device)
        aligned = recipe.step(base, principled, torch.full_like(principled[:, 0], recipe.ratio), self._state)
        self._state = aligned.state
        return aligned.final()

    def _follow(self, input_ids: Tensor) -> None:
        """Take up the tokens that `generate` has chosen since the last step."""
        if self._seen is None:
            copies, left_over = divmod(len(input_ids), len(self._mask))
            if left_over or not copies:
                raise ValueError(f"{len(self._mask)} base prompts do not fit a batch of {len(input_ids)} rows")
            # As `generate` repeats its prompts for num_return_sequences.
            self._next_ids = self._next_ids.repeat_interleave(copies, dim=0).to(input_ids.device)
            self._mask = self._mask.repeat_interleave(copies, dim=0).to(input_ids.device)
        elif torch.equal(input_ids[:, :-1], self._seen):
            self._next_ids = input_ids[:, -1:]
            self._mask = torch.cat([self._mask, self._mask.new_ones(len(input_ids), 1)], dim=1)
        else:
            raise ValueError(
                "the rows do not go on from the last step: make a new AlignmentLogitsProcessor for each call of "
                "generate, and use neither beam search nor assisted generation"
            )
        self._seen = input_ids.clone()

    def _base_logits(self) -> Tensor:
        """Logits of the base twin for the next token: `(batch_size, vocab_size)`."""
        extra: dict[str, Any] = dict(self._keep_last)
        if self._takes_position_ids:
            positions = (self._mask.cumsum(-1) - 1).clamp_min_(0)
            extra["position_ids"] = positions[:, -self._next_ids.shape[1] :]
        output = self.model(
            input_ids=self._next_ids,
            attention_mask=self._mask,
            past_key_values=self._cache,
            use_cache=True,
            **extra,
        )
        logits: Tensor = output.logits[:, -1]
        return logits
