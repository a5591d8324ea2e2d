"""The user's saved soft prompts."""

from softprompt.library.queries import SORTS, EntryPage, EntrySummary
from softprompt.library.store import Library

__all__ = ["SORTS", "EntryPage", "EntrySummary", "Library"]
