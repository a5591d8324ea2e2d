"""The saved soft prompts of this user."""

from softprompt.library.queries import SORTS, EntryPage, EntrySummary
from softprompt.library.store import Library

__all__ = ["SORTS", "EntryPage", "EntrySummary", "Library"]
