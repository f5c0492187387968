"""Which device a worker computes on, and with how many threads."""

import os
import re
from importlib.util import find_spec

import torch

from node.errors import ModelRefused

OPENVINO = "openvino"


def torch_device(chosen: str) -> str:
    """The device that torch's own tensors lie on: the CPU for OpenVINO."""
    return "cpu" if chosen == OPENVINO else chosen


def choose(setting: str, *, openvino: bool = False) -> str:
    """The torch device for "auto", "cpu", "cuda" or "cuda:1".

    "auto" is the first GPU where there is one. "openvino" stays what it is for a caller that can do with
    it. Raises ModelRefused for anything else, and where a GPU or OpenVINO is asked for and absent.
    Call it in the process that computes: CUDA does not survive a fork.
    """
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if setting == "cpu":
        return setting
    if setting == OPENVINO and openvino:
        if find_spec("openvino") is None:
            raise ModelRefused('device "openvino" is set, and OpenVINO is not installed')
        return setting
    gpu = re.fullmatch(r"cuda(?::(\d+))?", setting, re.ASCII)
    if gpu is None:
        other = ' and "openvino"' if openvino else "; OpenVINO is for the jobs of `aenode work` only"
        raise ModelRefused(f'device {setting!r}: allowed are "auto", "cpu", "cuda", "cuda:1"{other}')
    if not torch.cuda.is_available() or int(gpu[1] or 0) >= torch.cuda.device_count():
        raise ModelRefused(f"device {setting!r} is set, and this machine has no such GPU")
    return setting


def use_threads(threads: int, processes: int = 1) -> int:
    """Let torch use `threads` CPU threads in this process, 0: its share of the CPUs; returns the number."""
    number = threads or max(1, len(os.sched_getaffinity(0)) // processes)
    torch.set_num_threads(number)
    return number
