"""The saved soft prompts of this user."""

from softprompt.library.queries import SORTS, Listed, Listing
from softprompt.library.store import Library

__all__ = ["SORTS", "Library", "Listed", "Listing"]
