"""Which device a worker computes on, and with how many threads."""

import os
from importlib.util import find_spec

import torch

from node.errors import ModelRefused

OPENVINO = "openvino"


def torch_device(chosen: str) -> str:
    """The device that torch's own tensors lie on: the CPU for OpenVINO."""
    return "cpu" if chosen == OPENVINO else chosen


def choose(setting: str) -> str:
    """The torch device for "auto", "cpu", "cuda" or "cuda:1"; "openvino" stays what it is.

    "auto" is the first GPU where there is one. Raises ModelRefused where a GPU is asked for and absent.
    Call it in the process that computes: CUDA does not survive a fork.
    """
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting == OPENVINO and find_spec("openvino") is None:
        raise ModelRefused('device "openvino" is set, and OpenVINO is not installed')
    if setting.startswith("cuda"):
        number = int(setting.partition(":")[2] or 0)
        if not torch.cuda.is_available() or number >= torch.cuda.device_count():
            raise ModelRefused(f"device {setting!r} is set, and this machine has no such GPU")
    return setting


def use_threads(threads: int, processes: int = 1) -> int:
    """Let torch use `threads` CPU threads in this process, 0: its share of the CPUs; returns the number."""
    number = threads or max(1, len(os.sched_getaffinity(0)) // processes)
    torch.set_num_threads(number)
    return number
