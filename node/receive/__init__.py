"""The C-STORE and C-ECHO provider: associations in, durable instances and their index entries out."""

from node.receive.processes import serve

__all__ = ["serve"]
