"""Themes in addition to Textual's. Textual's `ansi-dark` and `ansi-light` use the terminal's 16 colors."""

from __future__ import annotations

from textual.theme import Theme

THEMES = (
    Theme(
        name="softprompt-dark", primary="#7aa2f7", secondary="#9d7cd8", accent="#e0af68", success="#9ece6a",
        warning="#e0af68", error="#f7768e",
        foreground="#c8d3f5", background="#16161e", surface="#1f2335", panel="#1a1b26", dark=True,
        variables={
            "border": "#7aa2f7", "border-blurred": "#3b4261", "scrollbar": "#3b4261", "scrollbar-background": "#1f2335",
        },
    ),
    Theme(
        name="softprompt-light", primary="#2e5cb8", secondary="#7847bd", accent="#735800", success="#38691b",
        warning="#8f5e15", error="#c0224a",
        foreground="#20242c", background="#fafafa", surface="#eceef2", panel="#e3e6ec", dark=False,
        variables={
            "border": "#2e5cb8", "border-blurred": "#b4b9c6", "scrollbar": "#b4b9c6", "scrollbar-background": "#eceef2",
        },
    ),
    Theme(
        name="softprompt-contrast", primary="#ffff00", secondary="#00ffff", accent="#00ffff", success="#00ff00",
        warning="#ffff00", error="#ff6060",
        foreground="#ffffff", background="#000000", surface="#000000", panel="#000000", dark=True,
        variables={
            "border": "#ffffff", "border-blurred": "#909090", "text-muted": "#d0d0d0", "text-disabled": "#b0b0b0",
            "scrollbar": "#909090", "scrollbar-background": "#303030",
        },
    ),
)  # fmt: skip
