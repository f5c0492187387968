"""Ctrl-C within a test's own process."""

import signal


def press_ctrl_c() -> None:
    """Call what Python calls at SIGINT.

    No signal is sent: some kernels cannot save the matrix tiles that OpenVINO leaves in use in a process
    that ran it, as other tests here do, and end that process.
    """
    act = signal.getsignal(signal.SIGINT)
    assert callable(act)
    act(signal.SIGINT, None)
