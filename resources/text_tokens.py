"""Tokens of a text, as an encoder reads them: how many there are, and which of them fit."""

from dataclasses import dataclass
from typing import Any

from core.text_encoders import Kind, TextEncoderSpec


@dataclass(frozen=True)
class Read:
    """What an encoder reads of one text.

    Attributes:
        ids: Its tokens, special ones included.
        cut: How many were beyond the window.
    """

    ids: list[int]
    cut: int


@dataclass(frozen=True)
class Fitting:
    """What is sent of one text.

    Attributes:
        said: The prefix, and as much of the text as fits.
        tokens: How many those are, special ones included.
        cut: How many were beyond the window.
    """

    said: str
    tokens: int
    cut: int


class EstimatedTokens:
    """The same for an encoder whose tokens are not known here: so many bytes are one."""

    def __init__(self, spec: TextEncoderSpec, bytes_per_token: int) -> None:
        self.spec = spec
        self._bytes = bytes_per_token
        self.special = 2
        """What nearly all sentence encoders add."""

    def count(self, text: str, kind: Kind) -> int:
        """Tokens of a text, special ones and the prefix included, estimated."""
        said = self.spec.prefix(kind) + text
        return -(-len(said.encode()) // self._bytes) + self.special

    def fitting(self, text: str, kind: Kind) -> Fitting:
        """As much of a text, prefix included, as fits the window."""
        tokens = self.count(text, kind)
        said = self.spec.prefix(kind) + text
        cut = max(0, tokens - self.spec.max_tokens)
        if cut:
            room = (self.spec.max_tokens - self.special) * self._bytes
            said = said.encode()[:room].decode("utf-8", "ignore")
        return Fitting(said, tokens - cut, cut)


class TextTokens:
    """A tokenizer with the window and the prefixes of an encoder."""

    def __init__(self, tokenizer: str, spec: TextEncoderSpec) -> None:
        """Load it.

        Args:
            tokenizer: The text of a ``tokenizer.json``.
            spec: The encoder.
        """
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer)
        # Files of published models cut and pad by themselves, often at half the model's window.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.spec = spec
        self.special = self._tokenizer.num_special_tokens_to_add(is_pair=False)
        """Tokens that every text gets, whatever it says."""

    def count(self, text: str, kind: Kind) -> int:
        """Tokens of a text, special ones and the prefix included."""
        return len(self._encode(text, kind).ids) + self.special

    def read(self, text: str, kind: Kind) -> Read:
        """The tokens that fit the window: the first ones, and the special ones around them."""
        encoding = self._encode(text, kind)
        room = self.spec.max_tokens - self.special
        cut = max(0, len(encoding.ids) - room)
        if cut:
            encoding.truncate(room)
        return Read(self._tokenizer.post_process(encoding, None, True).ids, cut)

    def fitting(self, text: str, kind: Kind) -> Fitting:
        """As much of a text, prefix included, as fits the window, in characters."""
        encoding = self._encode(text, kind)
        room = self.spec.max_tokens - self.special
        said = self.spec.prefix(kind) + text
        cut = max(0, len(encoding.ids) - room)
        if cut:
            said = said[: encoding.offsets[room - 1][1]]
        return Fitting(said, len(encoding.ids) - cut + self.special, cut)

    def id_of(self, token: str) -> int:
        """Number of a token; -1 where there is none."""
        found = self._tokenizer.token_to_id(token)
        return -1 if found is None else found

    def _encode(self, text: str, kind: Kind) -> Any:
        said = self.spec.prefix(kind) + text
        return self._tokenizer.encode(
            said.lower() if self.spec.lowercase else said, add_special_tokens=False
        )
