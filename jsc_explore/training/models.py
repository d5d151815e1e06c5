"""Networks as torch modules, built from the layer language; initial weights depend on the seed alone."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from jsc_explore.network import Layer, Network

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "leaky": nn.LeakyReLU,
    "linear": nn.Identity,
}


class MaskedDropout(nn.Module):
    """Dropout with a mask set from outside, so that a run does not depend on the other replicas of its stack.

    ``mask`` broadcasts to ``(batch, *shape) float32`` and holds 0 or 1/(1-rate); it applies in training mode only.
    """

    mask: Tensor

    def __init__(self, shape: tuple[int, ...], rate: float) -> None:
        super().__init__()
        self.shape, self.rate = shape, rate
        self.register_buffer("mask", torch.ones(1, *shape), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask.to(x.dtype) if self.training else x


class BatchNorm(nn.BatchNorm1d):
    """Batch norm in float32 also under autocast, as on GPUs; under ``vmap`` it fails for half-precision inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float())


class Residual(nn.Module):
    """Two convolutions with batch norm around a shortcut (He et al., arXiv:1512.03385); 1×1 where channels differ."""

    def __init__(self, channels_in: int, channels: int, kernel: int, activation: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(channels_in, channels, kernel, padding=kernel // 2)
        self.bn1 = BatchNorm(channels)
        self.conv2 = nn.Conv1d(channels, channels, kernel, padding=kernel // 2)
        self.bn2 = BatchNorm(channels)
        self.shortcut = nn.Identity() if channels_in == channels else nn.Conv1d(channels_in, channels, 1)
        self.activation = _ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(self.activation(self.bn1(self.conv1(x)))))
        return self.activation(inner + self.shortcut(x))  # type: ignore[no-any-return]


def build(network: Network, seed: int) -> nn.Sequential:
    """Return the module ``(batch, 16) float32 -> (batch, 5) float32`` with PyTorch's default weights for ``seed``.

    The global random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        modules: list[nn.Module] = []
        for layer in network.layers:
            if layer.kind in ("conv1d", "residual") and layer.shape_in[0] == 1 and not _has_channels(modules):
                modules.append(nn.Unflatten(1, (1, layer.shape_in[1])))
            modules.append(_module(layer))
        return nn.Sequential(*modules)


def biases_before_batch_norm(module: nn.Module) -> set[str]:
    """Return the names of the biases before a batch norm, which subtracts them again with the mean.

    Their gradient is zero; its rounding errors are noise that Adam would scale up to a drift.
    """
    names = set()
    for prefix, parent in module.named_modules():
        children = list(parent.named_children())
        for (name, child), (_, follower) in itertools.pairwise(children):
            if isinstance(child, (nn.Linear, nn.Conv1d)) and isinstance(follower, BatchNorm):
                names.add(f"{prefix}.{name}.bias".lstrip("."))
    return names


def _has_channels(modules: list[nn.Module]) -> bool:
    return any(isinstance(module, (nn.Unflatten, nn.Conv1d, Residual)) for module in modules)


def _module(layer: Layer) -> nn.Module:
    match layer.kind:
        case "linear":
            return nn.Linear(layer.shape_in[0], layer.shape_out[0])
        case "batchnorm":
            return BatchNorm(layer.shape_in[0])
        case "activation":
            return _ACTIVATIONS[layer.name]()
        case "dropout":
            return MaskedDropout(layer.shape_in, layer.rate)
        case "conv1d":
            return nn.Conv1d(
                layer.shape_in[0], layer.shape_out[0], layer.size, stride=layer.stride, padding=layer.size // 2
            )
        case "residual":
            return Residual(layer.shape_in[0], layer.shape_out[0], layer.size, layer.name or "relu")
        case "maxpool":
            return nn.MaxPool1d(layer.size)
        case "avgpool":
            return nn.Sequential(nn.AdaptiveAvgPool1d(1), nn.Flatten())
        case "flatten":
            return nn.Flatten()
