"""The mathematics: recipes, and the update and statistics they are made of."""

from lalign.method.recorded import replay

__all__ = ["replay"]
