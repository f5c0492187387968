"""The models: autoencoders, the physics they are trained with, and their measures. Arrays only."""
