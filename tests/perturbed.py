"""Another processor's rounding on this one.

Processors add up a product's terms in different orders. MKL on Intel's even chooses the order by
the shape of a batch, so that an image alone and one among others get other last bits.
"""

import math
import warnings
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

PRODUCTS = (
    *("mm", "addmm", "mv", "addmv", "dot", "bmm", "baddbmm", "addbmm"),
    *("convolution", "convolution_backward", "_scaled_dot_product_flash_attention_for_cpu"),
)


@contextmanager
def perturbed(share):
    """Changes each value of a matrix product or convolution on the CPU by up to a share of it.

    How much depends on the value and on the shape of the product alone. Values of other types than
    float32 change by up to a unit of their last place.
    """
    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings(action="ignore"):  # that they are replaced
        for name in PRODUCTS:
            kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
            library.impl(name, partial(_changed, kernel, share), "CPU", with_keyset=True)
    try:
        yield
    finally:
        library._destroy()


def _changed(kernel, share, keys, *args, **options):
    results = kernel.call_boxed(keys, *args, **options)
    return (
        results
        if torch.jit.is_tracing()
        else tree_map_only(Tensor, partial(_change, share), results)
    )


def _change(share, values):
    if not values.is_floating_point():
        return values
    if values.dtype != torch.float32:
        share = torch.finfo(values.dtype).eps
    phase = sum((i + 1) * math.sqrt(size) for i, size in enumerate(values.shape))
    return values + share * values * torch.cos(1000 * values.float() + phase).to(values.dtype)
