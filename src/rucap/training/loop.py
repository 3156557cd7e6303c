"""The training loop of one stage: steps, checkpoints, evaluation, the best weights kept.

The loop knows how to step and to resume; what a step's loss is comes as a function, and examples by their number.
"""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from rucap.network.prefix_captioner import PrefixCaptioner, save_weights
from rucap.training.config import StageConfig
from rucap.training.examples import Example, Examples
from rucap.training.progress import Progress

LossFunction = Callable[[Sequence[Example], int], Tensor]
"""The loss of a batch of examples at a step."""
CHECKPOINT_SECONDS = 300.0


@dataclass
class Position:
    """Where a stage stands; saved with each checkpoint."""

    step: int = 0
    best: float = -math.inf

    def state_dict(self) -> dict[str, Any]:
        """For accelerate's checkpoints."""
        return {"step": self.step, "best": self.best}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For accelerate's checkpoints."""
        self.step, self.best = int(state["step"]), float(state["best"])


class Average:
    """An exponential moving average of the trainable weights (Polyak & Juditsky, 1992)."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.values = {name: p.detach().clone() for name, p in network.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the weights; early updates weigh more, so that it forgets its start."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        current = dict(self.network.named_parameters())
        torch._foreach_lerp_(list(self.values.values()), [current[name] for name in self.values], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the weights and their average."""
        for name, parameter in self.network.named_parameters():
            if name in self.values:
                kept = parameter.detach().clone()
                parameter.copy_(self.values[name])
                self.values[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """For accelerate's checkpoints."""
        return {"updates": self.updates, "values": self.values}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """For accelerate's checkpoints."""
        self.updates = int(state["updates"])
        for name, value in self.values.items():
            value.copy_(state["values"][name])


def set_dropout(network: nn.Module, rate: float) -> None:
    """Sets the rate of every dropout of the mapper and the language model but that of attention weights.

    Dropout of attention weights would keep torch from its fused attention, a third of a step's time.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0 if name.endswith("attn_dropout") else rate
        elif isinstance(getattr(module, "dropout", None), float) and not hasattr(module, "to_queries"):
            module.dropout = rate


def parameter_groups(network: PrefixCaptioner, stage: StageConfig) -> list[dict[str, Any]]:
    """The optimiser's groups; parameters that this stage leaves alone get no gradient. No decay on vectors."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        of_encoder = name.startswith("encoder.")
        parameter.requires_grad = not network.is_frozen(name) and not (of_encoder and stage.encoder_rate == 0)
        if parameter.requires_grad:
            rate = stage.learning_rate * (stage.encoder_rate if of_encoder else 1.0)
            decay = stage.weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": params, "lr": rate, "weight_decay": decay} for (rate, decay), params in groups.items()]


def rate_factor(step: int, steps: int, warmup: float) -> float:
    """Linear warm-up, then a cosine to 2 % of the full rate (Loshchilov & Hutter, arXiv:1608.03983)."""
    rise = max(1, round(steps * warmup))
    if step < rise:
        return (step + 1) / rise
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def run_stage(
    network: PrefixCaptioner,
    examples: Examples,
    loss_of: LossFunction,
    evaluate: Callable[[], dict[str, float]],
    stage: StageConfig,
    folder: Path,
    evaluations: int,
    report: Progress,
) -> None:
    """Runs or resumes one stage in `folder`; the best averaged weights end in `folder/best.safetensors`.

    `evaluate` scores the network as it stands; its entry "score" decides which weights are the best.
    """
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=_mixed_precision(),
        log_with="tensorboard",
        project_dir=folder,
    )
    folder.mkdir(parents=True, exist_ok=True)
    logging.getLogger("accelerate.utils.other").setLevel(
        logging.ERROR
    )  # tied weights are saved once, as they should be
    accelerator.init_trackers("tensorboard")
    torch.manual_seed(examples.seed)
    optimizer = torch.optim.AdamW(parameter_groups(network, stage), betas=(0.9, 0.98), fused=True)
    steps = len(examples) // stage.batch
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(step, steps, stage.warmup))
    position, average = Position(), Average(network, stage.average)
    accelerator.register_for_checkpointing(position, average)
    network, optimizer, scheduler = accelerator.prepare(network, optimizer, scheduler)
    checkpoint = folder / "checkpoint"
    if checkpoint.is_dir():
        accelerator.load_state(str(checkpoint))
    set_dropout(network, stage.dropout)

    loader = DataLoader(
        examples,
        stage.batch,
        sampler=range(position.step * stage.batch, steps * stage.batch),
        collate_fn=list,
        generator=torch.Generator(),  # its own: a loader that starts would move the one that dropout draws from
    )
    every = max(1, steps // evaluations)
    saved = time.monotonic()
    report.begin(folder.name, steps, position.step)
    network.train()
    for batch in loader:
        # On a CPU the plain form of attention is twice as fast backwards as the fused one, at these short lengths.
        with accelerator.autocast(), sdpa_kernel(SDPBackend.MATH):
            loss = loss_of(batch, position.step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(network.parameters(), stage.clip)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        average.update()
        position.step += 1
        rate = scheduler.get_last_lr()[0]
        accelerator.log({"loss": float(loss.detach()), "rate": rate}, position.step)
        report.step(position.step, float(loss.detach()), rate)
        if position.step % every == 0 or position.step == steps:
            average.swap()
            scores = evaluate()
            if scores["score"] >= position.best and accelerator.is_main_process:
                position.best = scores["score"]
                save_weights(accelerator.unwrap_model(network), folder / "best.safetensors")
            average.swap()
            network.train()
            accelerator.log(scores, position.step)
            _append(folder / "evaluations.jsonl", {"step": position.step, **scores})
            report.evaluated(position.step, scores)
        if time.monotonic() - saved > CHECKPOINT_SECONDS or position.step == steps:
            _save(accelerator, checkpoint)
            saved = time.monotonic()
    accelerator.end_training()


def _mixed_precision() -> str:
    fast = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    return "bf16" if fast else "no"


def _save(accelerator: Accelerator, checkpoint: Path) -> None:
    partial = checkpoint.with_name("checkpoint.part")
    shutil.rmtree(partial, ignore_errors=True)
    accelerator.save_state(str(partial))
    old = checkpoint.with_name("checkpoint.old")
    if checkpoint.exists():
        os.replace(checkpoint, old)
    os.replace(partial, checkpoint)
    shutil.rmtree(old, ignore_errors=True)


def _append(path: Path, row: dict[str, Any]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
