"""The commands of the node, one module a kind. Loaded by node.cli."""
