"""Defines the orders in which a layer's norms, attention and MLP follow each other."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from decodery.models.layers.attention import Angles, Attend, Attention


class PreNormBlock(nn.Module):
    """Computes attention, then the MLP, each on the normalised residual stream.

    Xiong et al., On Layer Normalization in the Transformer Architecture (2020). `mlp` is called as `mlp(x,
    residual=...)`.
    """

    def __init__(self, attn_norm: nn.Module, attn: nn.Module, mlp_norm: nn.Module, mlp: nn.Module) -> None:
        super().__init__()
        self.attn_norm = attn_norm
        self.attn = attn
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(self, x: Tensor, angles: Angles | None, attend: Attend) -> Tensor:
        x = self.attn(self.attn_norm(x), angles, attend, residual=x)
        out: Tensor = self.mlp(self.mlp_norm(x), residual=x)
        return out


class ParallelBlock(nn.Module):
    """Computes attention and the MLP side by side, and adds both to the residual stream.

    Without `mlp_norm` both read one normalised input (Wang and Komatsuzaki, GPT-J-6B, 2021).
    """

    def __init__(
        self, attn_norm: nn.Module, attn: Attention, mlp: nn.Module, mlp_norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.attn_norm = attn_norm
        self.attn = attn
        self.mlp_norm = mlp_norm
        self.mlp = mlp

    def forward(self, x: Tensor, angles: Angles | None, attend: Attend) -> Tensor:
        normed = self.attn_norm(x)
        attended = self.attn(normed, angles, attend, residual=x)
        out: Tensor = self.mlp(normed if self.mlp_norm is None else self.mlp_norm(x), residual=attended)
        return out


class PostNormBlock(nn.Module):
    """Computes attention, then the MLP, and normalises the residual stream after each.

    `attn` is called as `attn(x, given, attend, residual=...)`. Vaswani et al., Attention Is All You Need
    (2017), section 3.1.
    """

    def __init__(self, attn: nn.Module, attn_norm: nn.Module, mlp: nn.Module, mlp_norm: nn.Module) -> None:
        super().__init__()
        self.attn = attn
        self.attn_norm = attn_norm
        self.mlp = mlp
        self.mlp_norm = mlp_norm

    def forward(self, x: Tensor, given: Any, attend: Attend) -> Tensor:
        x = self.attn_norm(self.attn(x, given, attend, residual=x))
        out: Tensor = self.mlp_norm(self.mlp(x, residual=x))
        return out


class NormAfterBlock(nn.Module):
    """Computes attention, then the MLP, and normalises what each adds to the residual stream.

    Team OLMo, 2 OLMo 2 Furious (2024), section 3.2. The norms are called as `norm(x, residual)`.
    """

    def __init__(
        self, attn: Attention, attn_post_norm: nn.Module, mlp: nn.Module, mlp_post_norm: nn.Module
    ) -> None:
        super().__init__()
        self.attn = attn
        self.attn_post_norm = attn_post_norm
        self.mlp = mlp
        self.mlp_post_norm = mlp_post_norm

    def forward(self, x: Tensor, angles: Angles | None, attend: Attend) -> Tensor:
        x = self.attn_post_norm(self.attn(x, angles, attend), x)
        out: Tensor = self.mlp_post_norm(self.mlp(x), x)
        return out


class SandwichBlock(nn.Module):
    """Computes attention, then the MLP, each between two norms.

    Gemma Team, Gemma 2 (2024), section 2. The norms after the parts are called as `norm(x, residual)`.
    """

    def __init__(
        self,
        attn_norm: nn.Module,
        attn: Attention,
        attn_post_norm: nn.Module,
        mlp_norm: nn.Module,
        mlp: nn.Module,
        mlp_post_norm: nn.Module,
    ) -> None:
        super().__init__()
        self.attn_norm = attn_norm
        self.attn = attn
        self.attn_post_norm = attn_post_norm
        self.mlp_norm = mlp_norm
        self.mlp = mlp
        self.mlp_post_norm = mlp_post_norm

    def forward(self, x: Tensor, angles: Angles | None, attend: Attend) -> Tensor:
        x = self.attn_post_norm(self.attn(self.attn_norm(x), angles, attend), x)
        out: Tensor = self.mlp_post_norm(self.mlp(self.mlp_norm(x)), x)
        return out
