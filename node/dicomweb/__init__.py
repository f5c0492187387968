"""Peers that are reached over HTTP (PS3.18): STOW-RS for results, QIDO-RS for counts and proof."""
