"""Judgement of pixels, dumps and samples: what cannot be is left out, and said."""
