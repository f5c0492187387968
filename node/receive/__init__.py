"""The provider of C-STORE, C-ECHO and STOW-RS: in come associations and requests, out durable instances."""

from node.receive.processes import serve

__all__ = ["serve"]
