"""A user's own torch modules as the encoder and the decoder. Nothing else imports torch.

The losses are those of the built-in network; torch maps rows, and takes gradients back through the module.
"""

from daskumap.errors import DependencyError

try:
    import torch  # noqa: F401  # or whoever comes here is told what is missing
except ImportError as error:
    raise DependencyError(
        "A module as encoder is trained by torch, which is not installed. Install it: pip install "
        "'daskumap[torch]'"
    ) from error
