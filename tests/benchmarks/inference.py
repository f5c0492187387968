"""How fast a denoiser is: slices a second of each way, beside plain torch and the device's own matmul.

    python -m tests.benchmarks.inference [MODEL] [--size 512] [--slices 6] [--threads 0] [--device cpu]

Each way is timed several times in turn, the best counts: other work on the machine then falls on all of
them. "of matmul" is the network's arithmetic over the rate that a square matmul reaches in the same
precision, just before.
"""

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from models import weights
from models.acceleration import Backend, Precision, accelerate
from models.denoiser import channels_last

WAYS: tuple[tuple[str, Backend, Precision], ...] = (
    ("torch float32", "torch", "float32"),
    ("torch bfloat16", "torch", "bfloat16"),
    ("OpenVINO float32", "openvino", "float32"),
    ("OpenVINO bfloat16", "openvino", "bfloat16"),
)


def matmul_rate(device: str, precision: Precision) -> float:
    """Operations a second of a square matmul."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    side = 8192 if device.startswith("cuda") else 2048
    one = torch.ones(side, side, dtype=kind, device=device)
    best = min(_seconds(lambda: one @ one, device) for _ in range(4))
    return 2 * side**3 / best


def _seconds(action: Callable[[], object], device: str) -> float:
    begun = time.perf_counter()
    action()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def operations(network: nn.Module, x: torch.Tensor) -> float:
    """Multiplications and additions of one pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(x)
    return float(counter.get_total_flops())


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", default="ct-denoise")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--slices", type=int, default=6, help="timed passes of each way")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    model = weights.load(given.model, given.device)
    channels = 4 if model.kind == "denoiser" else 1
    rng = np.random.default_rng(0)
    x = torch.from_numpy(rng.normal(0, 0.05, (1, channels, given.size, given.size)).astype(np.float32))
    x = x.to(given.device)
    arithmetic = operations(model.network, x)
    ways: dict[str, tuple[nn.Module, torch.Tensor, Precision]] = {
        "plain torch": (model.network, x, "float32")
    }
    flat = x.contiguous(memory_format=torch.channels_last)
    for name, backend, precision in WAYS:
        try:
            fast = weights.load(given.model, given.device)
            channels_last(fast.network)
            ways[name] = (accelerate(fast, backend, precision, given.threads).network, flat, precision)
        except weights.WeightsError as error:
            print(f"{name}: {error}")
    best = dict.fromkeys(ways, float("inf"))
    with torch.inference_mode():
        for turn in range(given.slices + 1):
            for name, (network, batch, _) in ways.items():
                took = _seconds(lambda network=network, batch=batch: network(batch), given.device)
                if turn:  # the first warms up
                    best[name] = min(best[name], took)
    rates = {precision: matmul_rate(given.device, precision) for precision in ("float32", "bfloat16")}
    plain = best["plain torch"]
    print(
        f"{model.name} {model.version}, {given.size} × {given.size}, {arithmetic / 2e9:.1f} GMAC a slice, "
        f"{torch.get_num_threads()} threads, device {given.device}"
    )
    print("| way | ms a slice | slices/s | times plain | of matmul |\n|---|---|---|---|---|")
    for name, seconds in best.items():
        share = arithmetic / seconds / rates[ways[name][2]]
        print(f"| {name} | {1000 * seconds:.0f} | {1 / seconds:.1f} | {plain / seconds:.2f} | {share:.2f} |")


if __name__ == "__main__":
    main()
