"""The saved soft prompts of this user."""

from softprompt.library.store import Library, Listed

__all__ = ["Library", "Listed"]
