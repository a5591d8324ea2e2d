"""The words that the panes use, each explained in one or two sentences."""

from __future__ import annotations

from typing import NamedTuple

from softprompt_tui.state.fields import PROMPT_FIELDS, explained_settings


class Word(NamedTuple):
    """A term. `labels` are all its spellings on the screen."""

    labels: tuple[str, ...]
    meaning: str


WORDS = (
    Word(("soft token", "soft tokens", "k"), "A vector that takes the place of a word's embedding. k is their number."),
    Word(
        ("soft prompt",),
        "A few soft tokens that mean the same to the text encoder as your whole prompt. Training finds them.",
    ),
    Word(
        ("similarity", "similar", "soft"),
        "The cosine of two texts' embeddings: 1 means that the text encoder cannot tell them apart. Without other "
        "words: the soft prompt compared with your prompt.",
    ),
    Word(("best",), "The highest similarity of this run so far. That step is saved, not the last one."),
    Word(
        ("loss",),
        "What training makes smaller: 1 - similarity, on average over the prompt alone and in contexts. Lower is "
        "better.",
    ),
    Word(
        ("step", "steps"), "One small change of the soft tokens. A run takes as many steps as its field says, or fewer."
    ),
    Word(("round",), "One pass of the search for a hard readout over its words."),
    Word(("speed",), "Training steps in a second."),
    Word(("left",), "The time until the last step, at the speed of now."),
    Word(
        ("restart", "restarts"),
        "Another start, from other noise. All train together, and the best is saved.",
    ),
    Word(
        ("composed",),
        "The mean similarity when the soft prompt stands inside sentences, compared with the same sentences with your "
        "prompt written out.",
    ),
    Word(("worst",), "The lowest of the similarities inside sentences. composed is their mean."),
    Word(
        ("floor",),
        "The similarity that you get without training: of your prompt without the words around it (composition), or of "
        "its first words in as many tokens (readout). A good result is well above it.",
    ),
    Word(
        ("fidelity",),
        "The similarity of your composition to the same sentence with the prompts written out. 1 means that nothing "
        "is lost.",
    ),
    Word(("contexts",), "Sentences with a gap. Training in them teaches the soft prompt to work among other words."),
    Word(("tokens",), "Pieces of text that the encoder reads: a word is one or more. The model limits their number."),
    Word(("to the other text",), "The similarity of the composition to the text in the second line."),
    Word(
        ("readout",),
        "The words nearest to each soft token. They hint at its meaning; what it does is in the vector itself.",
    ),
    Word(
        ("cosine",),
        "How close a word's embedding is to the soft token, 1 at most. Values around .4 are usual: a soft token lies "
        "between the words.",
    ),
    Word(
        ("as text",),
        "The similarity if you type the nearest words instead of using the vectors. It is low: the words are only a "
        "hint.",
    ),
    Word(
        ("hard", "hard readout"),
        "Real words, found by a search, that mean about the same. You can type them in any program.",
    ),
    Word(("hard prompt", "prompt"), "The text that you typed, which the soft prompt stands for."),
    Word(("knee",), "The number of tokens after which more of them add little. It is usually the best choice."),
    Word(("sweep",), "One training for each of several numbers of soft tokens, so that you can choose."),
    Word(("hidden-state",), "How well the states inside the encoder agree, which image programs read."),
    Word(("model",), "The text encoder that a soft prompt is trained for. It does not fit another one."),
    Word(
        ("name", "name or prompt"),
        "A soft prompt's word in compositions: [name]. A run without a name shows its prompt.",
    ),
    Word(("tags", "note"), "Your own words about a soft prompt. The search finds them."),
    Word(("age", "created", "changed"), "When the soft prompt was trained or imported, and when you last edited it."),
    Word(
        ("state", "queued", "started", "ended", "error"),
        "Whether a run waits, trains, is paused or has ended; since when; and why it failed.",
    ),
    Word(("kind",), "What a run does: train a soft prompt, sweep token counts, or search for a hard readout."),
    Word(("run", "id"), "The identifier of a run or entry, also for the command line."),
    Word(("trained", "settings"), "How the soft prompt was made. Settings at their defaults are not listed."),
    Word(("warnings",), "What to know before you use the soft prompt, such as a prompt that was cut."),
    Word(("versions",), "The versions of the packages that trained it."),
    Word(("mixed", "ported"), "The soft prompts from which this one was made."),
    Word(
        ("file", "format", "part", "with", "sha256", "file says"),
        "The file that the soft prompt was imported from, and what the file claims.",
    ),
    Word(("width",), "The length of an embedding. A file fits a program only if its width is the program's."),
    Word(("layers", "text tower"), "The size of the text encoder: its layers, and the parameters of its text part."),
    Word(("context",), "How many tokens the model reads at most, with its start and end token."),
    Word(("size",), "The bytes of a file, or of a model's files on disk."),
    Word(("here",), "Whether a model is on this machine, or how far its download is."),
    Word(("read by",), "The image programs that use this text encoder. A language model answers instead."),
    Word(
        ("KL",),
        "With a language model: how far the soft tokens move the probabilities of each answer token away from those "
        "with your prompt. 0 means no difference.",
    ),
    Word(
        ("agreement", "agree"),
        "With a language model: the share of answer tokens that are the likeliest with your prompt and with the soft "
        "tokens. The library lists it as similar.",
    ),
    Word(
        ("of the floor", "of floor", "floors"),
        "The KL as a share of the KL without training: of no prompt, or of the prompt's beginning in as many tokens. "
        "Below .4 is good.",
    ),
    Word(
        ("question", "none", "answers"),
        "A question that training has not seen, with three answers of a language model: with the soft tokens, with "
        "your hard prompt, with none.",
    ),
    Word(
        ("placement",),
        "Where the soft tokens of a language model stand: in place of the system text, before the user's text, or "
        "before a plain text.",
    ),
    Word(("accuracy",), "Of tuning on examples: the share of the examples whose likeliest answer is the output."),
    Word(("type",), "Text encoders turn a text into an embedding, language models answer it."),
)

PANE_WORDS = {
    "prompt": ("soft prompt", "soft token", "tokens", "contexts", "hard prompt", "model"),
    "loss": (
        "similarity", "best", "loss", "composed", "step", "speed", "left", "restart", "round",
        "KL", "agreement", "of the floor", "accuracy",
    ),
    "readout": ("readout", "soft", "as text", "hard", "floor", "cosine", "composed", "soft token", "question"),
    "detail": (
        "model", "soft tokens", "similarity", "composed", "worst", "floor", "hidden-state", "KL", "agreement",
        "placement", "readout", "hard readout",
        "trained", "created", "mixed", "file", "tags", "warnings", "versions", "id", "sweep", "state",
    ),
    "library": ("name", "k", "similarity", "agreement", "composed", "model", "tags", "age", "readout"),
    "compose": ("fidelity", "floor", "tokens", "to the other text", "soft token"),
    "runs": ("state", "kind", "step", "similarity", "age", "name", "sweep", "hard readout"),
    "sweep": (
        "tokens", "similarity", "composed", "worst", "floor", "as text", "readout", "knee", "KL",
        "agreement", "of the floor",
    ),
    "models": ("model", "type", "width", "layers", "context", "size", "here", "read by"),
}  # fmt: skip


def find_word(label: str) -> Word | None:
    """Return the word that is spelled so on the screen."""
    return next((word for word in WORDS if label in word.labels), None)


def words_of(pane: str) -> list[Word]:
    """Return the words of a pane in the order of its labels."""
    found = [find_word(label) for label in PANE_WORDS.get(pane, ())]
    return list(dict.fromkeys(word for word in found if word is not None))


def explained_fields(pane: str) -> list[tuple[str, str]]:
    """Return the fields of the prompt pane and the training settings, each with its explanation."""
    if pane != "prompt":
        return []
    return [*((field.label, field.explain()) for field in PROMPT_FIELDS.values()), *explained_settings()]
